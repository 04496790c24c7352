package gvisor

import (
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Memory files are what children get instead of files on disk. Many sandboxes
// hold descriptors of the same one (the root image), and whoever holds a
// descriptor can open it again for writing, so that a read-only one is no
// protection: a memory file is sealed once it is written, for good and for all.

// memoryFilePrefix tells them from the Sentry's own in /proc/PID/fd.
const memoryFilePrefix = "cri-sandbox "

const allSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// memoryFile returns a read-only descriptor, at its beginning, of an unnamed file
// that nobody can change any more.
func memoryFile(name string, content []byte) (*os.File, error) {
	f, err := openMemoryFile(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return nil, fmt.Errorf("write memory file %s: %w", name, err)
	}
	fd, err := rawFD(f)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, allSeals)
	}
	if err != nil {
		return nil, fmt.Errorf("seal memory file %s: %w", name, err)
	}
	// Kernels before 6.7 map no sealed file through a descriptor that could write.
	return reopen(f)
}

// openMemoryFile returns an empty file that its holders write to.
func openMemoryFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(memoryFilePrefix+name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("create memory file %s: %w", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// fixedMemoryFile returns a file that its holders write to and cannot make larger: a
// sandbox does not make the node pay for what it writes there.
func fixedMemoryFile(name string, content []byte) (*os.File, error) {
	f, err := openMemoryFile(name)
	if err != nil {
		return nil, err
	}
	fd, err := rawFD(f)
	if err == nil {
		_, err = f.WriteAt(content, 0)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write memory file %s: %w", name, err)
	}
	return f, nil
}

// specFile returns a spec as a memory file.
func specFile(spec any) (*os.File, error) {
	b, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	return memoryFile("spec", b)
}

// reopen returns another descriptor of a memory file, for reading only.
func reopen(f *os.File) (*os.File, error) {
	fd, err := rawFD(f)
	if err == nil {
		fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("reopen %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
