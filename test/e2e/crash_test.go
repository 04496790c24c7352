package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/lifecycle"
	"github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
)

// TestCrashAtEveryStep kills the daemon at each step of the code that has a name
// (package crashpoint), starts it again, and goes on as a caller would: the call
// that was cut off is made again, and all that follow. Afterwards nothing may be
// left on the node. The steps come from the source; one that no life gets to
// fails the test.
//
// With `make soak` each step is died at each time that a life gets to it,
// and then again, and the next daemon dies, too, while it takes over. CRASH_ONLY is
// a part of the name of deaths, and then the others are left out.
func TestCrashAtEveryStep(t *testing.T) {
	steps, err := crashSteps(node.Repo)
	if err != nil {
		t.Fatal(err)
	}
	armed := buildArmed(t)
	nodes := make([]crashNode, 2)
	for i := range nodes {
		nodes[i] = newCrashNode(t, armed)
	}
	deaths := planDeaths(t, nodes[0], steps)
	if only := os.Getenv("CRASH_ONLY"); only != "" {
		deaths = slices.DeleteFunc(deaths, func(d death) bool { return !strings.Contains(d.String(), only) })
	}
	t.Logf("%d steps, %d deaths", len(steps), len(deaths))

	queue := make(chan death, len(deaths))
	for _, d := range deaths {
		queue <- d
	}
	close(queue)
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() {
			for d := range queue {
				if err := n.survive(d); err != nil {
					t.Errorf("%v: %v", d, err)
					n.reset()
				}
			}
		})
	}
	wg.Wait()
}

// TestCrashPointsAreNotInANormalBuild reads the program that is installed.
func TestCrashPointsAreNotInANormalBuild(t *testing.T) {
	program, err := os.ReadFile(filepath.Join(node.Repo, "bin", "cri-sandbox"))
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"CRI_SANDBOX_CRASH", "before cni add", "record of pod request"} {
		if bytes.Contains(program, []byte(word)) {
			t.Errorf("the daemon contains %q", word)
		}
	}
}

// buildArmed builds the daemon with the crash points in it.
func buildArmed(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cri-sandbox")
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "crashpoints", "-o", path, "./cmd/cri-sandbox")
	cmd.Dir = node.Repo
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the daemon with crash points: %v\n%s", err, out)
	}
	return path
}

// crashNode is a node whose daemon dies and is started over and over.
type crashNode struct {
	kit
	armed  string
	images []string // what the image store holds between two lives
}

func newCrashNode(t *testing.T, armed string) crashNode {
	n := crashNode{kit: ownNode(t, testenv.Options{}), armed: armed}
	n.ctx = t.Context() // a kit's is too short for hours; each call has its own limit
	l := newLife(n.env)
	n.must(l.removeImage(n.ctx))
	_, err := n.liveThrough(l, lives["pod"], nil) // makes the bridge
	n.must(err)
	n.must(n.env.MarkBaseline())
	n.must(n.env.Stop(n.ctx))
	n.images, err = imageFiles(n.env)
	n.must(err)
	return n
}

// survive dies once or twice, and audits what a caller finds then, and what is
// left when he has cleaned up.
func (n crashNode) survive(d death) error {
	if err := n.env.Kill(); err != nil {
		return err
	}
	died, l, err := n.die(d)
	if err != nil {
		return fmt.Errorf("%w (%v)", err, l)
	}
	if !died && !n.hasDied() {
		return errors.New("the daemon did not get there")
	}
	if n.env.Daemon.PID() == 0 { // in a step that no call waits for
		if err := n.next(d); err != nil {
			return err
		}
	}
	if err := n.env.Audit(n.ctx); err != nil || d.life != "image" {
		return err
	}
	return n.auditImages()
}

// auditImages looks into the image store of a daemon that it stops.
func (n crashNode) auditImages() error {
	if err := n.env.Stop(n.ctx); err != nil {
		return err
	}
	now, err := imageFiles(n.env)
	if err != nil {
		return err
	}
	for _, item := range now {
		if !slices.Contains(n.images, item) {
			return fmt.Errorf("the image store holds %s\n%s", item, contentOf(item))
		}
	}
	return nil
}

// contentOf is what a file or the files of a directory begin with.
func contentOf(path string) string {
	var b strings.Builder
	_ = filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			content, err := os.ReadFile(name)
			fmt.Fprintf(&b, "%s: %.60q %v\n", d.Name(), content, err)
		}
		return nil
	})
	return b.String()
}

// imageFiles lists the blobs, the downloads under way and the leases of a daemon
// that does not run.
func imageFiles(env *testenv.Env) ([]string, error) {
	root := filepath.Join(env.Root, "images")
	var found []string
	for _, pattern := range []string{"content/blobs/*/*", "content/ingest/*"} {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		found = append(found, files...)
	}
	db, err := bolt.Open(filepath.Join(root, "meta.db"), 0, &bolt.Options{ReadOnly: true, Timeout: limit})
	if err != nil {
		return nil, err
	}
	defer db.Close()
	return found, db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("v1"))
		for _, name := range []string{"cri-sandbox", "leases"} {
			if b == nil {
				return nil
			}
			b = b.Bucket([]byte(name))
		}
		if b == nil {
			return nil
		}
		return b.ForEachBucket(func(id []byte) error {
			found = append(found, "lease "+string(id))
			return nil
		})
	})
}

// die lives a life in which the daemon is to die.
func (n crashNode) die(d death) (died bool, _ *life, _ error) {
	l := newLife(n.env)
	n.env.Use(n.armed, fmt.Sprintf("CRI_SANDBOX_CRASH_AT=%s#%d", d.step, d.n))
	_, err := n.env.Start(n.ctx)
	if err == nil {
		died, err = n.liveThrough(l, lives[d.life], func() error { return n.next(d) })
		return died, l, err
	}
	if err := n.next(d); err != nil { // it died before it was ready
		return true, l, err
	}
	_, err = n.liveThrough(l, lives[d.life], nil)
	return true, l, err
}

// hasDied waits for a death that is due.
func (n crashNode) hasDied() bool {
	select {
	case <-n.env.Daemon.Done():
		return true
	case <-time.After(3 * time.Second):
		return false
	}
}

// next starts the daemon after one that died.
func (n crashNode) next(d death) error {
	if !n.hasDied() {
		return errors.New("the daemon is alive")
	}
	if d.then != "" {
		n.env.Use(n.armed, fmt.Sprintf("CRI_SANDBOX_CRASH_AT=%s#%d", d.then, d.thenN))
		// What a container has printed by then, and so what there is to do, differs.
		// Nor does it wait for what it does in the background.
		if _, err := n.env.Start(n.ctx); err == nil && !n.hasDied() {
			n.Logf("%v: the next daemon did not get there", d)
		}
		if err := n.env.Kill(); err != nil {
			return err
		}
	}
	n.env.Use("")
	if _, err := n.env.Start(n.ctx); err != nil {
		return fmt.Errorf("the next daemon: %w", err)
	}
	return n.becomesSettled()
}

// becomesSettled waits for what a daemon finishes after it is ready.
func (n crashNode) becomesSettled() error {
	for deadline := time.Now().Add(limit); ; time.Sleep(10 * time.Millisecond) {
		err := n.settled()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// liveThrough makes the calls. One that fails because the daemon died is made
// again once restart has started the next.
func (n crashNode) liveThrough(l *life, calls []call, restart func() error) (died bool, err error) {
	for _, c := range calls {
		err := n.try(c, l)
		if err != nil && restart != nil && !died && n.hasDied() {
			died = true
			if err := restart(); err != nil {
				return died, fmt.Errorf("after the death in %q: %w", c.name, err)
			}
			err = n.try(c, l)
		}
		if err != nil {
			return died, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return died, nil
}

// try makes a call, as long as the daemon lives.
func (n crashNode) try(c call, l *life) error {
	ctx, cancel := context.WithTimeout(n.ctx, limit)
	defer cancel()
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		select {
		case <-n.env.Daemon.Done():
			cancel()
		case <-stop:
		}
	}()
	return c.do(l, ctx)
}

// settled compares what a new daemon tells with its records: no operation is
// left in its middle, and what is told to be ready is.
func (n crashNode) settled() error {
	pods, err := filepath.Glob(filepath.Join(n.env.Root, "pods", "*"))
	if err != nil {
		return err
	}
	for _, dir := range pods {
		id := filepath.Base(dir)
		rec, err := readPodRecord(n.env, id)
		if err != nil {
			return fmt.Errorf("pod %s has just gone, or its record: %w", id, err)
		}
		r, err := n.runtime().PodSandboxStatus(n.ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id})
		if err != nil {
			return err
		}
		switch rec.Phase {
		case lifecycle.Creating, lifecycle.Stopping, lifecycle.Removing:
			return fmt.Errorf("pod %s was left %s", id, rec.Phase)
		}
		if ready := r.Status.State == runtimeapi.PodSandboxState_SANDBOX_READY; ready != (rec.Phase == lifecycle.Ready) {
			return fmt.Errorf("pod %s is told to be %v, its record says %s", id, r.Status.State, rec.Phase)
		}
		if err := n.settledContainers(dir); err != nil {
			return err
		}
	}
	return nil
}

func (n crashNode) settledContainers(pod string) error {
	files, err := filepath.Glob(filepath.Join(pod, "*", "status.json"))
	if err != nil {
		return err
	}
	for _, file := range files {
		id := filepath.Base(filepath.Dir(file))
		var rec record.ContainerStatus
		if err := readJSON(file, &rec); err != nil {
			return err
		}
		r, err := n.runtime().ContainerStatus(n.ctx, &runtimeapi.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			return err
		}
		want, known := map[lifecycle.Phase]runtimeapi.ContainerState{
			lifecycle.Created: runtimeapi.ContainerState_CONTAINER_CREATED,
			lifecycle.Running: runtimeapi.ContainerState_CONTAINER_RUNNING,
			lifecycle.Exited:  runtimeapi.ContainerState_CONTAINER_EXITED,
		}[rec.Phase]
		if !known {
			return fmt.Errorf("container %s was left %s", id, rec.Phase)
		}
		// It may have ended since.
		if got := r.Status.State; got != want && got != runtimeapi.ContainerState_CONTAINER_EXITED {
			return fmt.Errorf("container %s is told to be %v, its record says %s", id, got, rec.Phase)
		}
	}
	return nil
}

// reset makes the node fit for the next death after one that was not survived.
func (n crashNode) reset() {
	n.env.Kill()
	n.env.Use("")
	if _, err := n.env.Start(n.ctx); err != nil {
		n.Errorf("start over: %v", err)
		return
	}
	if err := n.env.Client.RemoveAll(n.ctx); err != nil {
		n.Logf("start over: %v", err)
	}
	if err := newLife(n.env).removeImage(n.ctx); err != nil {
		n.Logf("start over: %v", err)
	}
	if err := n.env.MarkBaseline(); err != nil {
		n.Errorf("start over: %v", err)
	}
}

func readPodRecord(env *testenv.Env, id string) (st record.PodStatus, err error) {
	return st, readJSON(filepath.Join(env.Root, "pods", id, "status.json"), &st)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
