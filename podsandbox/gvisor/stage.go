package gvisor

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/google/renameio/v2"
)

//go:embed embedded
var embedded embed.FS

const (
	embeddedProgram = "embedded/cri-sandbox-sentry"
	stagedPrefix    = "cri-sandbox-sentry-"
)

// stageProgram writes the embedded program to a folder, under a name that holds
// its hash, unless it is there already, and returns its path. Older programs are
// removed once no process runs them: an upgrade of the daemon never changes the
// program under a running sandbox.
func stageProgram(dir string) (string, error) {
	src, err := embedded.Open(embeddedProgram)
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("this daemon was built without the sandbox program; run \"make build\" and use its result: %w", errdefs.ErrFailedPrecondition)
	} else if err != nil {
		return "", fmt.Errorf("open embedded program: %w", err)
	}
	defer src.Close()
	hash := sha256.New()
	size, err := io.Copy(hash, src)
	if err != nil {
		return "", fmt.Errorf("hash embedded program: %w", err)
	}
	path := filepath.Join(dir, stagedPrefix+hex.EncodeToString(hash.Sum(nil))[:16])
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("stage program: %w", err)
	}
	removeUnusedPrograms(dir, path)
	// Written and renamed as a whole, so a file of that name is complete.
	if st, err := os.Stat(path); err == nil && st.Size() == size {
		return path, nil
	}
	if err := writeProgram(src.(io.ReadSeeker), path); err != nil {
		return "", fmt.Errorf("stage program: %w", err)
	}
	return path, nil
}

func writeProgram(src io.ReadSeeker, path string) error {
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	t, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o755))
	if err != nil {
		return err
	}
	defer t.Cleanup()
	if _, err := io.Copy(t, src); err != nil {
		return err
	}
	return t.CloseAtomicallyReplace()
}

// removeUnusedPrograms is best effort: a program that stays costs space only.
func removeUnusedPrograms(dir, keep string) {
	entries, _ := os.ReadDir(dir)
	var old []string
	for _, entry := range entries {
		path := filepath.Join(dir, entry.Name())
		if strings.HasPrefix(entry.Name(), stagedPrefix) && path != keep {
			old = append(old, path)
		}
	}
	if len(old) == 0 {
		return
	}
	running := map[fileID]bool{}
	_ = eachProcess(func(pid int) {
		if id, err := executableOf(pid); err == nil {
			running[id] = true
		}
	})
	for _, path := range old {
		if id, err := identify(path); err == nil && !running[id] {
			os.Remove(path)
		}
	}
}
