package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// pod is what the walk reads of a pod that the kubelet tells of.
type pod struct {
	Metadata struct{ Name, Namespace, UID string }
	Status   struct {
		Phase, Message, Reason, PodIP string
		Conditions                    []struct{ Type, Status, Reason, Message string }
		InitContainerStatuses         []containerStatus
		ContainerStatuses             []containerStatus
	}
}

type containerStatus struct {
	Name, ContainerID string
	Ready             bool
	RestartCount      int
	State, LastState  struct {
		Waiting    *struct{ Reason, Message string }
		Running    *struct{ StartedAt string }
		Terminated *struct {
			ExitCode        int
			Reason, Message string
		}
	}
}

// container finds a container's status; the zero value when there is none yet.
func (p *pod) container(name string) containerStatus {
	for _, list := range [][]containerStatus{p.Status.ContainerStatuses, p.Status.InitContainerStatuses} {
		for _, c := range list {
			if c.Name == name {
				return c
			}
		}
	}
	return containerStatus{}
}

func (p *pod) ready() bool {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

// tlsConfig does not check the certificate, which the kubelet made for itself.
func tlsConfig() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }

// url of the kubelet's API.
func (k *kubelet) url(path string, query url.Values) string {
	u := url.URL{Scheme: "https", Host: fmt.Sprintf("127.0.0.1:%d", k.port), Path: path, RawQuery: query.Encode()}
	return u.String()
}

// get reads one answer of the API, within 20 seconds. Another status than 200 is
// an error that quotes the answer.
func (k *kubelet) get(ctx context.Context, path string, query url.Values) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, k.url(path, query), nil)
	if err != nil {
		return "", err
	}
	// The environment's proxy is not asked for what is on loopback.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig(), DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %.300s", path, resp.Status, b)
	}
	return string(b), err
}

// pods are all that the kubelet knows, by their names in the manifests.
func (k *kubelet) pods(ctx context.Context) (map[string]*pod, error) {
	text, err := k.get(ctx, "/pods", nil)
	if err != nil {
		return nil, err
	}
	var list struct{ Items []*pod }
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("decode pods: %w", err)
	}
	out := map[string]*pod{}
	for _, p := range list.Items {
		out[p.Metadata.Name[:max(0, len(p.Metadata.Name)-len("-"+nodeName))]] = p
	}
	return out, nil
}

// await polls until good returns nil for the pod. The last error is returned with
// the pod's state.
func (k *kubelet) await(ctx context.Context, name string, good func(*pod) error) (*pod, error) {
	var p *pod
	err := poll(ctx, func() error {
		all, err := k.pods(ctx)
		if err != nil {
			return err
		}
		if p = all[name]; p == nil {
			return errors.New("the kubelet does not know it")
		}
		return good(p)
	})
	if err != nil {
		state, _ := json.MarshalIndent(p, "", " ")
		return p, fmt.Errorf("wait for pod %s: %w\n%s", name, err, state)
	}
	return p, nil
}

// fatal ends a poll at once.
type fatal struct{ error }

// limit is when something that did not happen will not. A busy machine takes long.
const limit = 5 * time.Minute

// poll calls f until it returns nil, ctx ends or the limit has passed.
func poll(ctx context.Context, f func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := f()
		if err == nil || errors.As(err, &fatal{}) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; at last: %w", ctx.Err(), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
