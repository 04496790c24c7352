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
	embeddedHash    = embeddedProgram + ".sha256" // in hex, made by build.sh
	stagedPrefix    = "cri-sandbox-sentry-"
)

// stageProgram writes the embedded program to a directory, under a name that holds
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
	info, err := src.Stat()
	if err != nil {
		return "", fmt.Errorf("open embedded program: %w", err)
	}
	// Hashed by the build: a daemon that finds its program staged never touches
	// those 34 MB, which would stay in its memory.
	hash, err := embedded.ReadFile(embeddedHash)
	if err != nil || len(hash) != hex.EncodedLen(sha256.Size) {
		return "", fmt.Errorf("the sandbox program has no hash; run \"make build\" and use its result: %w", errdefs.ErrFailedPrecondition)
	}
	path := filepath.Join(dir, stagedPrefix+string(hash[:16]))
	// Sandboxes with ids of their own run it by a descriptor of the directory.
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("stage program: %w", err)
	}
	removeUnusedPrograms(dir, path)
	// Written and renamed as a whole, so a file of that name is complete.
	if st, err := os.Stat(path); err == nil && st.Size() == info.Size() {
		return path, nil
	}
	if err := writeProgram(src, string(hash), path); err != nil {
		return "", fmt.Errorf("stage program: %w", err)
	}
	return path, nil
}

// writeProgram makes sure that what it writes has the hash it is named by.
func writeProgram(src io.Reader, hash, path string) error {
	t, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o755))
	if err != nil {
		return err
	}
	defer func() { _ = t.Cleanup() }()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(t, sum), src); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != hash {
		return fmt.Errorf("the embedded program has the hash %s, the build noted %s; run \"make clean build\": %w", got, hash, errdefs.ErrFailedPrecondition)
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
	err := eachProcess(func(d *procDir) error {
		id, err := d.executable()
		if err == nil {
			running[id] = true
		}
		return err
	})
	if err != nil {
		return // one of them may run it
	}
	for _, path := range old {
		if id, err := identify(path); err == nil && !running[id] {
			os.Remove(path)
		}
	}
}
