package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
)

// Loaded is a pod and its containers as they stand on disk.
type Loaded struct {
	Pod        *Pod
	Containers []*Container

	// Lost are the ids of containers that were set aside: the pod's sandbox may
	// still run them.
	Lost []string
}

// Load reads all records. What can be missing after a crash, and what is done:
//
//   - a directory without its immutable file: the creation did not get that far and
//     was never answered; the directory is removed;
//   - a status that is absent or torn (power loss): the pod counts as Dead, the
//     container as Exited with an unknown end, which is reported;
//   - an immutable file that cannot be read or is of a later version: the directory
//     is set aside below .damaged and reported; what the pod holds on the host is
//     then an orphan like any other, and the rest goes on.
func (s *Store) Load() (pods []Loaded, damaged []error, err error) {
	names, err := directories(s.dir)
	if err != nil {
		return nil, nil, fmt.Errorf("read record directory: %w", err)
	}
	for _, name := range names {
		l, errs := s.loadPod(filepath.Join(s.dir, name))
		damaged = append(damaged, errs...)
		if l.Pod != nil {
			pods = append(pods, l)
		}
	}
	return pods, damaged, nil
}

func (s *Store) loadPod(dir string) (l Loaded, damaged []error) {
	e, lostStatus, err := load[PodMeta, PodStatus](dir, podFile)
	if err == nil && e != nil {
		err = checkVersion(dir, e.Meta.Version, e.Meta.ID)
	}
	if err != nil {
		return l, []error{s.setAside(dir, err)}
	}
	if e == nil {
		return l, nil
	}
	if !lifecycle.Pod.Known(e.Status().Phase) {
		damaged = append(damaged, fmt.Errorf("the status of pod %s was lost, it counts as dead: %w", e.Meta.ID, lostStatus))
		e.setStatus(PodStatus{Phase: lifecycle.Dead, Message: "the status of the pod was lost"})
	}
	l.Pod = &Pod{e}

	names, err := directories(dir)
	if err != nil {
		return l, append(damaged, err)
	}
	for _, name := range names {
		ce, lostStatus, err := load[ContainerMeta, ContainerStatus](filepath.Join(dir, name), containerFile)
		if err == nil && ce != nil {
			err = checkVersion(ce.dir, ce.Meta.Version, ce.Meta.ID)
		}
		if err != nil {
			damaged = append(damaged, s.setAside(filepath.Join(dir, name), err))
			l.Lost = append(l.Lost, name)
			continue
		}
		if ce == nil {
			continue
		}
		if !lifecycle.Container.Known(ce.Status().Phase) {
			damaged = append(damaged, fmt.Errorf("the status of container %s was lost, it counts as exited: %w", ce.Meta.ID, lostStatus))
			ce.setStatus(lost(ce.Meta))
		}
		l.Containers = append(l.Containers, &Container{ce})
	}
	return l, damaged
}

// setAside keeps a damaged directory for the operator, out of the way.
func (s *Store) setAside(dir string, why error) error {
	to := filepath.Join(s.dir, damagedDir, filepath.Base(dir))
	err := os.MkdirAll(filepath.Dir(to), 0o700)
	if err == nil {
		os.RemoveAll(to)
		err = os.Rename(dir, to)
	}
	if err != nil {
		return fmt.Errorf("%w; set it aside: %w", why, err)
	}
	return fmt.Errorf("%w; it was set aside in %s", why, to)
}

// lost is the status of a container whose own was lost.
func lost(meta ContainerMeta) ContainerStatus {
	return ContainerStatus{
		Phase: lifecycle.Exited, StartedAt: meta.CreatedAt, FinishedAt: meta.CreatedAt,
		ExitCode: 255, Reason: "ContainerStatusUnknown", Message: "the status of the container was lost",
	}
}

// load reads one entry; nil without an error is a creation that did not get far.
// A status that cannot be read is the zero value, and lostStatus says why.
func load[M, S any](dir, metaFile string) (e *entry[M, S], lostStatus, err error) {
	e = &entry[M, S]{dir: dir}
	err = readJSON(filepath.Join(dir, metaFile), &e.Meta)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, os.RemoveAll(dir)
	}
	if err != nil {
		return nil, nil, err
	}
	lostStatus = readJSON(filepath.Join(dir, statusFile), &e.status)
	if lostStatus != nil {
		var none S
		e.status = none
		return e, lostStatus, nil
	}
	return e, errUnknownPhase, nil
}

// errUnknownPhase is what is wrong with a status that can be read and is lost.
var errUnknownPhase = errors.New("it names a phase that there is not")

func checkVersion(dir string, version int, id string) error {
	if version < 1 || version > Version {
		return fmt.Errorf("record %s is of version %d, this daemon reads up to %d", dir, version, Version)
	}
	if id != filepath.Base(dir) {
		return fmt.Errorf("record %s names the id %q", dir, id)
	}
	return nil
}

func directories(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && e.Name() != damagedDir {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
