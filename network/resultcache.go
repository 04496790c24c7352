package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// resultCache runs the plugins of one attachment. It saves each result of ADD before
// the next plugin runs, and hands the last one to each DEL.
//
// libcni does so, too, but only when all plugins have come to their end: a DEL
// after an ADD that failed in its middle gets no result from it, and plugins such
// as firewall then leave their rules behind, without an error.
type resultCache struct {
	runner
	records attachments
	podID   string
}

// ExecPlugin implements invoke.Exec.
func (r *resultCache) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) ([]byte, error) {
	switch commandOf(env) {
	case "ADD":
		out, err := r.runner.ExecPlugin(ctx, path, stdin, env)
		if err != nil {
			return nil, err
		}
		crashpoint.Here("before cni result")
		err = r.records.saveResult(r.podID, out)
		crashpoint.Here("after cni result")
		return out, err
	case "DEL":
		with, err := withPrevResult(stdin, r.records.loadResult(r.podID))
		if err != nil {
			return nil, err
		}
		stdin = with
	}
	return r.runner.ExecPlugin(ctx, path, stdin, env)
}

// libcni returns the library with the result cache of one pod.
func (c *CNI) libcni(podID string) libcni.CNI {
	return libcni.NewCNIConfigWithCacheDir(c.binDirs, c.cacheDir, &resultCache{records: c.records, podID: podID})
}

// withPrevResult adds a result to a plugin's configuration that has none. CNI
// before 0.4.0 does not know it for DEL.
func withPrevResult(conf, result []byte) ([]byte, error) {
	if result == nil {
		return conf, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(conf, &fields); err != nil {
		return nil, fmt.Errorf("parse plugin configuration: %w", err)
	}
	if _, has := fields["prevResult"]; has {
		return conf, nil
	}
	var v string
	if err := json.Unmarshal(fields["cniVersion"], &v); err != nil {
		return conf, nil
	}
	if ok, err := version.GreaterThanOrEqualTo(v, "0.4.0"); err != nil || !ok {
		return conf, nil
	}
	fields["prevResult"] = result
	return json.Marshal(fields)
}

func (s attachments) resultPath(id string) string { return s.path(id) + ".result" }

func (s attachments) saveResult(id string, result []byte) error {
	if err := os.WriteFile(s.resultPath(id), bytes.TrimSpace(result), 0o600); err != nil {
		return fmt.Errorf("save result of attachment %s: %w", id, err)
	}
	return nil
}

// loadResult returns the last result, or nil. One that a crash cut short is none.
func (s attachments) loadResult(id string) []byte {
	raw, err := os.ReadFile(s.resultPath(id))
	if err != nil || !isObject(raw) {
		return nil
	}
	return raw
}

func (s attachments) removeResult(id string) error {
	if err := os.Remove(s.resultPath(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove result of attachment %s: %w", id, err)
	}
	return nil
}
