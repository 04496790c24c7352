package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// IDs names the pods that have a record below dir and the containers of each. It
// only reads, and so may be called while a daemon works in the directory. A record
// that is there but damaged counts; one whose creation did not get far does not.
// A directory that does not exist has none.
func IDs(dir string) (map[string][]string, error) {
	ids := map[string][]string{}
	pods, err := directories(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list records: %w", err)
	}
	for _, pod := range pods {
		if !isRecord(filepath.Join(dir, pod, podFile)) {
			continue
		}
		names, err := directories(filepath.Join(dir, pod))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("list records: %w", err)
		}
		ids[pod] = nil
		for _, name := range names {
			if isRecord(filepath.Join(dir, pod, name, containerFile)) {
				ids[pod] = append(ids[pod], name)
			}
		}
	}
	return ids, nil
}

// isRecord is true in doubt: what cannot be looked at must not count as gone.
func isRecord(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// Find returns the request of each pod with a record below dir. It only reads;
// records that cannot be read are left out.
func Find(dir string) ([]PodMeta, error) {
	ids, err := IDs(dir)
	if err != nil {
		return nil, err
	}
	var found []PodMeta
	for id := range ids {
		var meta PodMeta
		if readJSON(filepath.Join(dir, id, podFile), &meta) == nil && meta.ID == id {
			found = append(found, meta)
		}
	}
	return found, nil
}

// Damaged names the directories below dir that a daemon could not read and has set
// aside.
func Damaged(dir string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, damagedDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list damaged records: %w", err)
	}
	var paths []string
	for _, e := range entries {
		paths = append(paths, filepath.Join(dir, damagedDir, e.Name()))
	}
	return paths, nil
}

// ContainerNames returns the names of a pod's containers by their ids. It only
// reads; a record that cannot be read goes by its id.
func ContainerNames(dir, pod string) (map[string]string, error) {
	ids, err := IDs(dir)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	for _, id := range ids[pod] {
		names[id] = id
		var meta ContainerMeta
		if readJSON(filepath.Join(dir, pod, id, containerFile), &meta) == nil && meta.Config.Proto.GetMetadata().GetName() != "" {
			names[id] = meta.Config.Proto.GetMetadata().GetName()
		}
	}
	return names, nil
}
