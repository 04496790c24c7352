// Package volumeuser builds a program that does with files what applications that share
// a volume do, for tests to run in their containers.
package volumeuser

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// Name is that of the program.
const Name = "volume-user"

// Install puts the program into a directory.
func Install(dir string) error {
	b, err := program()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, Name), b, 0o755)
}

// program is built once, without cgo: in a container there are no libraries.
var program = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", Name)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, Name)
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path,
		"github.com/cri-sandbox/cri-sandbox/hack/volumeuser/program")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w: %s", Name, err, out)
	}
	return os.ReadFile(path)
})
