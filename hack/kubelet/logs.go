package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// chattyLines is how many lines the pod chatty prints.
const chattyLines = 6000

// chatty waits until the container has printed its last line, and sees that the
// kubelet has turned its log over and that no line is missing or doubled from one
// file to the next. (It keeps three of them.)
func (w *walk) chatty(ctx context.Context) (string, error) {
	if _, err := w.run(ctx, "chatty", ready); err != nil {
		return "", err
	}
	dir := filepath.Join(w.env.LogDir, "default_chatty-"+nodeName+"_*", "chatty")
	var names []string
	var first, last int
	err := poll(ctx, func() error {
		files, err := filepath.Glob(filepath.Join(dir, "0.log*"))
		if err != nil {
			return err
		}
		// The one that is written to sorts first, and is the newest.
		slices.Sort(files)
		if len(files) < 3 {
			return fmt.Errorf("log files: %q", files)
		}
		names = nil
		var text strings.Builder
		for _, f := range append(files[1:], files[0]) {
			names = append(names, filepath.Base(f))
			if err := appendLog(&text, f); err != nil {
				return err
			}
		}
		first, last, err = consecutive(text.String())
		if err == nil && last != chattyLines {
			err = fmt.Errorf("the last line is %d", last)
		}
		return err
	})
	if err != nil {
		return strings.Join(names, "  "), err
	}
	return fmt.Sprintf("%s: lines %d to %d", strings.Join(names, ", "), first, last),
		os.Remove(filepath.Join(w.kubelet.manifests(), "chatty.yaml"))
}

// appendLog adds the records of a log file, compressed or not.
func appendLog(text *strings.Builder, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	defer f.Close()
	var r io.Reader = f
	if strings.HasSuffix(path, ".gz") {
		if r, err = gzip.NewReader(f); err != nil {
			return fmt.Errorf("read log %s: %w", path, err)
		}
	}
	if _, err := io.Copy(text, r); err != nil {
		return fmt.Errorf("read log %s: %w", path, err)
	}
	return nil
}

// consecutive checks that records in CRI's form hold "line N" with one N after the
// other, and returns the first and the last.
func consecutive(records string) (first, last int, err error) {
	for record := range strings.Lines(records) {
		f := strings.SplitN(strings.TrimSuffix(record, "\n"), " ", 4)
		var n int
		if len(f) != 4 {
			return first, last, fmt.Errorf("bad record %q", record)
		}
		if _, err := fmt.Sscanf(f[3], "line %d", &n); err != nil {
			return first, last, fmt.Errorf("bad line %q: %w", record, err)
		}
		if first == 0 {
			first = n
		} else if n != last+1 {
			return first, last, fmt.Errorf("line %d comes after %d", n, last)
		}
		last = n
	}
	if first == 0 {
		err = errors.New("the log is empty")
	}
	return first, last, err
}
