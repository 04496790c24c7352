package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// smallFiles takes n files in a new directory through their lives.
func smallFiles(directory string, n int) ([]row, error) {
	if err := os.Mkdir(directory, 0o755); err != nil {
		return nil, err
	}
	defer os.RemoveAll(directory)
	// The names are made before, so that only calls are timed.
	first, second := make([]string, n), make([]string, n)
	for i := range n {
		first[i] = filepath.Join(directory, fmt.Sprintf("a%06d", i))
		second[i] = filepath.Join(directory, fmt.Sprintf("b%06d", i))
	}
	content := bytes.Repeat([]byte("0123456789"), 10)
	var st unix.Stat_t
	return each(n, []step{
		{"create a file", func(i int) error { return create(first[i], content) }},
		{"stat a file", func(i int) error { return unix.Lstat(first[i], &st) }},
		{"read a file", func(i int) error { return read(first[i], len(content)) }},
		{"rename a file", func(i int) error { return unix.Rename(first[i], second[i]) }},
		{"unlink a file", func(i int) error { return unix.Unlink(second[i]) }},
	})
}

// create opens, writes and closes.
func create(path string, content []byte) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return err
	}
	n, err := unix.Write(fd, content)
	if err == nil && n < len(content) {
		err = io.ErrShortWrite
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}

// buffer is what read reads to; a page is what a program reads first of a file.
var buffer [4096]byte

// read opens, reads once, at least so many bytes, and closes.
func read(path string, least int) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	n, err := unix.Read(fd, buffer[:])
	if err == nil && n < least {
		err = io.ErrUnexpectedEOF
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return err
}
