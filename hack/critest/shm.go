package main

import "golang.org/x/sys/unix"

// Commands of shmctl(2).
const (
	shmStat = 13 // by index, not by id; returns the id
	shmInfo = 14 // returns the highest index in use
)

// suiteSegment is the size of the shared memory that the suite makes on the host
// with ipcmk, and leaves there.
const suiteSegment = 1 << 20

// segments lists the host's shared memory of that size which nobody has attached.
func segments() map[int]bool {
	out := map[int]bool{}
	var d unix.SysvShmDesc
	last, err := unix.SysvShmCtl(0, shmInfo, &d)
	if err != nil {
		return out
	}
	for i := range last + 1 {
		id, err := unix.SysvShmCtl(i, shmStat, &d)
		if err == nil && d.Segsz == suiteSegment && d.Nattch == 0 {
			out[id] = true
		}
	}
	return out
}

// removeSegments removes those that were not there before the suite.
func removeSegments(before map[int]bool) {
	for id := range segments() {
		if !before[id] {
			unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		}
	}
}
