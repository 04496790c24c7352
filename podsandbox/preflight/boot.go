package preflight

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cri-sandbox/cri-sandbox/network"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/engine"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor"
)

// bootLimit is many times what a boot takes.
const bootLimit = time.Minute

// boot runs a sandbox for a moment: the whole truth about the platform, the
// filters, and where programs may be run from.
func boot(ctx context.Context, o Options) []Finding {
	if err := mayExecute(existing(o.Root)); err != nil {
		return bad(fmt.Sprintf("Remount it with exec (mount -o remount,exec), or configure another root than %s.", o.Root), "%v", err)
	}
	if !o.Boot {
		return good("not tried; --boot does")
	}
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	start := time.Now()
	if err := bootOnce(ctx, o); err != nil {
		return bad("Look at what the error quotes; on a virtual machine the processor may lack what its kernel was built for.", "%v", err)
	}
	return good("a sandbox came up and went within %v", time.Since(start).Round(time.Millisecond))
}

// mayExecute looks for the mount option that forbids programs.
func mayExecute(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at the file system of %s: %w", dir, err)
	}
	if st.Flags&unix.ST_NOEXEC != 0 {
		return fmt.Errorf("%s is on a file system that is mounted noexec, where the sandbox program cannot run from", dir)
	}
	return nil
}

func bootOnce(ctx context.Context, o Options) (err error) {
	dir, err := os.MkdirTemp(existing(o.State), ".check-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)
	programs, err := os.MkdirTemp(existing(o.Root), ".check-")
	if err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(programs)
	e, err := gvisor.New(gvisor.Options{StateDir: dir, ProgramDir: programs})
	if err != nil {
		return fmt.Errorf("open gVisor engine: %w", err)
	}
	defer e.Close()
	netns := filepath.Join(dir, "netns")
	if err := network.CreateNamespace(netns); err != nil {
		return err
	}
	defer func() { _ = network.RemoveNamespace(netns) }()
	cfg := engine.Config{ID: "check", Dir: filepath.Join(dir, "sandbox"), Hostname: "check", NetNS: netns}
	if err := os.Mkdir(cfg.Dir, 0o700); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	s, err := e.Boot(ctx, cfg)
	if err != nil {
		return fmt.Errorf("boot sandbox: %w", err)
	}
	defer func() {
		killCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if kerr := s.Kill(killCtx); err == nil {
			err = kerr
		}
	}()
	return s.StartRoot(ctx)
}
