package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"time"
)

// logLine is what the container prints again and again: 99 characters and a
// newline, a common length.
var logLine = strings.Repeat("0123456789", 9) + "012345678"

const linesPerBlock = 40000 // one block is 4 MB

// measureLogs has a container print --log-mb megabytes in large writes of short
// lines, and times from its first to its last line in the log file.
func measureLogs(ctx context.Context, o options, t *target) ([]result, error) {
	blocks := max(1, o.logMB*1000*1000/(linesPerBlock*(len(logLine)+1)))
	// The block is made first, in the container's memory, so that what is measured
	// is cat and the way from there. The container stays until it is removed.
	script := fmt.Sprintf(`yes %s | head -n %d >/dev/shm/block && echo begin && i=0 && `+
		`while [ $i -lt %d ]; do cat /dev/shm/block; i=$((i+1)); done && echo end && sleep 1000000`, logLine, linesPerBlock, blocks)
	p, _, err := t.newPod(ctx, o.image, script)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := waitEnd(ctx, p.log); err != nil {
		return nil, err
	}
	took := time.Since(begin)
	payload := int64(blocks) * linesPerBlock * int64(len(logLine)+1)
	fi, err := os.Stat(p.log)
	if err != nil {
		return nil, err
	}
	if fi.Size() < payload {
		return nil, fmt.Errorf("log has %d bytes, of at least %d that were printed", fi.Size(), payload)
	}
	out := []result{single("log throughput", "MB/s", float64(payload)/1e6/took.Seconds())}
	return out, t.removePod(ctx, p)
}

// waitEnd looks at the end of the log until the record of "end" is there.
func waitEnd(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("wait for log: %w", err)
	}
	defer f.Close()
	for {
		fi, err := f.Stat()
		if err != nil {
			return fmt.Errorf("wait for log: %w", err)
		}
		tail := make([]byte, 64)
		n, _ := f.ReadAt(tail, max(0, fi.Size()-int64(len(tail))))
		if bytes.HasSuffix(tail[:n], []byte(" stdout F end\n")) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for end of log %s (%d bytes): %w", path, fi.Size(), ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}
