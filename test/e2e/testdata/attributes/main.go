// Command attributes prints its user ids and capabilities, and then for each file
// that is named its mode, owner, number of links, and the attribute user.mark.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

func main() {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fmt.Println(err)
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:\t")
	effective, _, _ := strings.Cut(rest, "\n")
	fmt.Printf("uid %d euid %d effective %s\n", os.Getuid(), os.Geteuid(), effective)
	for _, path := range os.Args[1:] {
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			fmt.Println(path, err)
			continue
		}
		mark := make([]byte, 100)
		n, err := syscall.Getxattr(path, "user.mark", mark)
		if err != nil {
			n = copy(mark, "-")
		}
		fmt.Printf("%s mode %o owner %d:%d links %d mark %s\n", path, st.Mode&0o7777, st.Uid, st.Gid, st.Nlink, mark[:n])
	}
}
