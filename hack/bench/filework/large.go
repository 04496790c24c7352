package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

// largeFile writes a file from its begin to its end and reads it again. It is not
// flushed: how fast the node's disk is has nothing to do with the way to it.
func largeFile(directory string, megabytes int) ([]row, error) {
	if err := os.Mkdir(directory, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	path := filepath.Join(directory, "large")
	block := make([]byte, 1000*1000)
	for i := range block {
		block[i] = byte(rand.Uint32()) // no zeros that something leaves out
	}
	write, err := rate("write a large file", megabytes, func() error { return fill(path, block, megabytes) })
	if err != nil {
		return nil, err
	}
	read, err := rate("read a large file", megabytes, func() error { return drain(path, block, megabytes) })
	if err != nil {
		return nil, err
	}
	return []row{write, read}, nil
}

func rate(name string, megabytes int, do func() error) (row, error) {
	begin := time.Now()
	if err := do(); err != nil {
		return row{}, fmt.Errorf("%s: %w", name, err)
	}
	return row{name, "MB/s", float64(megabytes) / time.Since(begin).Seconds()}, nil
}

func fill(path string, block []byte, blocks int) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	for range blocks {
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Close()
}

func drain(path string, block []byte, blocks int) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var total int
	for total < blocks*len(block) {
		n, err := f.Read(block)
		if err != nil {
			return err
		}
		total += n
	}
	return nil
}
