package gvisor

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const ioringSetupDisabled = 1 << 6

// newPinRing returns a disabled io_uring, or nil where the host allows none. The
// Sentry pins its packet sockets in it. As the daemon and the gofers hold the
// ring too, the kernel releases the sockets in its own time after the Sentry has
// ended, which takes ten milliseconds off the end of a sandbox.
func newPinRing() *os.File {
	var params [120]byte // struct io_uring_params
	*(*uint32)(unsafe.Pointer(&params[8])) = ioringSetupDisabled
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return nil
	}
	return os.NewFile(fd, "pin ring") // the kernel makes it close-on-exec
}
