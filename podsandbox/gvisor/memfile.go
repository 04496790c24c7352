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
	if err := addSeals(f, allSeals); err != nil {
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

// sizeSeals keep a file at its size.
const sizeSeals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW

// sizedMemoryFile returns a file of zeros that its holders write to and cannot make
// larger: a sandbox does not make the node pay for what it writes there. Memory is
// taken when it is written.
func sizedMemoryFile(name string, size int64) (*os.File, error) {
	f, err := openMemoryFile(name)
	if err != nil {
		return nil, err
	}
	if err = f.Truncate(size); err == nil {
		err = addSeals(f, sizeSeals)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("make memory file %s: %w", name, err)
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
	var again int
	err := control(f, func(fd int) (err error) {
		again, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reopen %s: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(again), f.Name()), nil
}

func addSeals(f *os.File, seals int) error {
	return control(f, func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
		return err
	})
}
