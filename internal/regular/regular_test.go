package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// strange makes a directory with one thing of each kind, and what reading it says.
func strange(t *testing.T, limit int) map[string]error {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	must(os.WriteFile(in("file"), make([]byte, limit), 0o600))
	must(os.Symlink("file", in("link")))
	must(os.WriteFile(in("large"), make([]byte, limit+1), 0o600))
	must(os.Truncate(in("large"), 1<<40))
	must(os.Mkdir(in("directory"), 0o700))
	must(unix.Mkfifo(in("fifo"), 0o600))
	must(os.Symlink("fifo", in("link to a FIFO")))
	must(os.Symlink("loop", in("loop")))
	must(os.Symlink("/dev/zero", in("device")))
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	must(err)
	t.Cleanup(func() { unix.Close(fd) })
	must(unix.Bind(fd, &unix.SockaddrUnix{Name: in("socket")}))
	return map[string]error{
		in("file"): nil, in("link"): nil, in("none"): fs.ErrNotExist, in("file/x"): unix.ENOTDIR,
		in("large"): ErrTooLarge, in("directory"): ErrNotRegular, in("fifo"): ErrNotRegular,
		in("link to a FIFO"): ErrNotRegular, in("loop"): unix.ELOOP, in("device"): ErrNotRegular, in("socket"): ErrNotRegular,
		// Larger than it says: only reading tells.
		"/proc/self/maps": ErrTooLarge,
	}
}

func TestReadTakesRegularFilesOnly(t *testing.T) {
	const limit = 16
	for path, want := range strange(t, limit) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			type answer struct {
				data       []byte
				read, seen error
			}
			answers := make(chan answer, 1)
			go func() {
				data, err := Read(path, limit)
				answers <- answer{data, err, Check(path, limit)}
			}()
			select {
			case a := <-answers:
				if !errors.Is(a.read, want) || want == nil && len(a.data) != limit {
					t.Errorf("read %d bytes, %v; want %v", len(a.data), a.read, want)
				}
				if path != "/proc/self/maps" && !errors.Is(a.seen, want) {
					t.Errorf("check: %v, want %v", a.seen, want)
				}
			case <-time.After(30 * time.Second):
				t.Error("it hangs")
			}
		})
	}
}

// TestReadOpensNothingElse: to open a device can be to act on it.
func TestReadOpensNothingElse(t *testing.T) {
	const limit = 16
	for path, want := range strange(t, limit) {
		if !errors.Is(want, ErrNotRegular) {
			continue
		}
		t.Run(filepath.Base(path), func(t *testing.T) {
			watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(watch)
			if _, err := unix.InotifyAddWatch(watch, path, unix.IN_OPEN); err != nil {
				t.Fatal(err)
			}
			if _, err := Read(path, limit); !errors.Is(err, ErrNotRegular) {
				t.Errorf("error %v", err)
			}
			if n, err := unix.Read(watch, make([]byte, 4096)); err != unix.EAGAIN {
				t.Errorf("it was opened: %d bytes of events, %v", n, err)
			}
		})
	}
}
