// Command ipcs prints the ids of all System V shared memory segments, as
// `ipcs -m` does, without /proc/sysvipc, which the Sentry does not have. critest
// looks in its output for a segment of the host.
package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Commands of shmctl(2).
const (
	shmStat = 13 // by index, not by id; returns the id
	shmInfo = 14 // returns the highest index in use
)

func main() {
	var d unix.SysvShmDesc
	last, err := unix.SysvShmCtl(0, shmInfo, &d)
	if err != nil {
		fmt.Fprintln(os.Stderr, "ipcs:", err)
		os.Exit(1)
	}
	fmt.Println("shmid")
	for i := range last + 1 {
		if id, err := unix.SysvShmCtl(i, shmStat, &d); err == nil {
			fmt.Println(id)
		}
	}
}
