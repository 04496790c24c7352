package logs

import (
	"bytes"
	"context"
	"os"
	"testing"
)

// BenchmarkThroughput is FIFO to log, lines of 100 bytes, with the writer in the
// same process.
func BenchmarkThroughput(b *testing.B) {
	cfg := testConfig(b)
	s := mustCreate(b, cfg)
	out := container(b, s)[1]
	block := bytes.Repeat(append(bytes.Repeat([]byte("x"), 99), '\n'), 10_000)
	b.SetBytes(int64(len(block)))
	for n := 0; b.Loop(); n++ {
		if _, err := out.Write(block); err != nil {
			b.Fatal(err)
		}
		if n%500 == 499 { // keep the disk small
			if err := os.Truncate(cfg.LogPath, 0); err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := s.Finish(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkLine is the cost of a line that comes alone: from the write to the
// record in the log.
func BenchmarkLine(b *testing.B) {
	cfg := testConfig(b)
	s := mustCreate(b, cfg)
	out := container(b, s)[1]
	line := append(bytes.Repeat([]byte("x"), 99), '\n')
	size := func() int64 {
		info, err := os.Stat(cfg.LogPath)
		if err != nil {
			b.Fatal(err)
		}
		return info.Size()
	}
	for b.Loop() {
		before := size()
		if _, err := out.Write(line); err != nil {
			b.Fatal(err)
		}
		for size() == before {
		}
	}
}
