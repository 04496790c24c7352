// Command reach tries to get out of a container: it connects to each address that
// it is given, such as tcp:127.0.0.1:80, unix:/run/x.sock or unix:@abstract, and
// prints those that answer. Then it walks the file system and prints each socket,
// device of a disk and file of the given name, and ends with "done".
package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	secret := os.Args[1]
	for _, target := range os.Args[2:] {
		network, address, _ := strings.Cut(target, ":")
		conn, err := net.DialTimeout(network, address, 3*time.Second)
		if err != nil {
			continue
		}
		conn.Close()
		fmt.Println("reached", target)
	}
	filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case strings.HasPrefix(path, "/proc/") && d.IsDir() && path != "/proc/1":
			return filepath.SkipDir // the sandbox's own; one process is like another
		case d.Type()&fs.ModeSocket != 0, d.Name() == secret, isDisk(d):
			fmt.Println("found", path)
		}
		return nil
	})
	for _, path := range []string{"/proc/1/root/../../../../" + secret, "/proc/1/cwd/../../../" + secret} {
		if _, err := os.Stat(path); err == nil {
			fmt.Println("found", path)
		}
	}
	fmt.Println("done")
}

func isDisk(d fs.DirEntry) bool {
	return d.Type()&fs.ModeDevice != 0 && d.Type()&fs.ModeCharDevice == 0
}
