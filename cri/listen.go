package cri

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
)

// Listen opens the Unix socket of a URL such as unix:///run/x.sock, for root alone
// or for a group, too, given by its name or number: whoever may use it is root on
// the node. A socket file that nobody listens on is replaced.
func Listen(url, group string) (net.Listener, error) {
	path, ok := strings.CutPrefix(url, "unix://")
	if !ok || !filepath.IsAbs(path) {
		return nil, fmt.Errorf("listen address %q is not of the form unix:///path: %w", url, errdefs.ErrInvalidArgument)
	}
	gid, err := lookupGroup(group)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o711); err != nil {
		return nil, fmt.Errorf("make socket directory: %w", err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another process listens on %s: %w", path, errdefs.ErrFailedPrecondition)
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("%s exists and is no socket: %w", path, errdefs.ErrFailedPrecondition)
	}
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := errors.Join(protect(path, gid), letThrough(filepath.Dir(path), gid)); err != nil {
		l.Close()
		return nil, fmt.Errorf("protect socket: %w", err)
	}
	return l, nil
}

// protect sets owner and mode. The socket is born without write permission for
// others, which is what connecting needs: the daemon's umask takes it.
func protect(path string, gid int) error {
	if gid < 0 {
		return os.Chmod(path, 0o600)
	}
	// In this order: never writable by a group that is not meant.
	return errors.Join(os.Chmod(path, 0o600), os.Chown(path, -1, gid), os.Chmod(path, 0o660))
}

// letThrough lets the group pass through the directory of the socket, if that is closed
// to all but root, as the daemon's own are.
func letThrough(dir string, gid int) error {
	fi, err := os.Stat(dir)
	if err != nil || gid < 0 || fi.Mode().Perm()&0o077 != 0 {
		return err
	}
	return errors.Join(os.Chown(dir, -1, gid), os.Chmod(dir, 0o710))
}

// lookupGroup returns -1 for no group.
func lookupGroup(group string) (int, error) {
	if group == "" {
		return -1, nil
	}
	if gid, err := strconv.ParseUint(group, 10, 31); err == nil {
		return int(gid), nil
	}
	g, err := user.LookupGroup(group)
	if err != nil {
		return -1, fmt.Errorf("look up group of socket: %w: %w", err, errdefs.ErrInvalidArgument)
	}
	return strconv.Atoi(g.Gid)
}
