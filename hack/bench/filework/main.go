// Command filework does to the root file system of its container what programs do
// to files, and prints what a call took, for hack/bench: one line, a JSON list of
// name, unit and value. It owns one directory, which it makes and removes. On small
// files it makes system calls itself: those of package os do more than is asked.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// row is one measurement.
type row struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

func main() {
	// On the root file system, where no image has a mount or a volume.
	directory := flag.String("directory", "/bench-filework", "directory that is made and removed")
	files := flag.Int("files", 2000, "small files")
	megabytes := flag.Int("mb", 256, "megabytes of the large file")
	flag.Parse()
	rows, err := measure(*directory, *files, *megabytes)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(rows)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "filework:", err)
		os.Exit(1)
	}
}

func measure(directory string, files, megabytes int) (rows []row, err error) {
	for _, part := range []func() ([]row, error){
		imageFiles, // first, before there are files that are not the image's
		func() ([]row, error) { return smallFiles(directory, files) },
		func() ([]row, error) { return largeFile(directory, megabytes) },
	} {
		r, err := part()
		if err != nil {
			return nil, err
		}
		rows = append(rows, r...)
	}
	return rows, nil
}

// step is something that is done to each of n files.
type step struct {
	name string
	do   func(i int) error
}

// each takes the steps one after the other.
func each(n int, steps []step) ([]row, error) {
	var rows []row
	for _, s := range steps {
		begin := time.Now()
		for i := range n {
			if err := s.do(i); err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
		}
		took := time.Since(begin)
		rows = append(rows, row{s.name, "µs", float64(took) / float64(time.Microsecond) / float64(n)})
	}
	return rows, nil
}
