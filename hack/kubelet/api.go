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
	"strings"
	"time"

	"k8s.io/streaming/pkg/httpstream"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// pod is what the walk reads of a pod that the kubelet tells of.
type pod struct {
	Metadata struct{ Name string }
	Status   struct {
		Phase, PodIP          string
		Conditions            []struct{ Type, Status string }
		InitContainerStatuses []containerStatus
		ContainerStatuses     []containerStatus
	}
}

type containerStatus struct {
	Name, ContainerID string
	RestartCount      int
	State, LastState  struct {
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

func ready(p *pod) error {
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" && c.Status == "True" {
			return nil
		}
	}
	return errors.New("it is not ready")
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
		out[strings.TrimSuffix(p.Metadata.Name, "-"+nodeName)] = p
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

// open opens a connection for streams to a pod, as `kubectl` does by way of the API
// server, and a stream for each type. It ends after a minute, if done is not called.
func (k *kubelet) open(path string, q url.Values, more http.Header, types ...string) (streams map[string]httpstream.Stream, done func(), err error) {
	protocol := "v4.channel.k8s.io"
	if more != nil {
		protocol = "portforward.k8s.io"
	}
	conn, err := testenv.DialSPDY(k.url(path, q), protocol, tlsConfig())
	if err != nil {
		return nil, nil, fmt.Errorf("connect to %s: %w", path, err)
	}
	timer := time.AfterFunc(time.Minute, func() { conn.Close() })
	done = func() { timer.Stop(); conn.Close() }
	streams = map[string]httpstream.Stream{}
	for _, t := range types {
		h := http.Header{"Streamtype": {t}}
		for name, values := range more {
			h[name] = values
		}
		if streams[t], err = conn.CreateStream(h); err != nil {
			done()
			return nil, nil, fmt.Errorf("open stream %s of %s: %w", t, path, err)
		}
	}
	return streams, done, nil
}

// session is the outcome of an exec.
type session struct {
	stdout, stderr string
	code           int
}

// exec runs a command in a container and feeds it stdin. With tty it runs on a
// terminal of 40 rows and 100 columns.
func (k *kubelet) exec(pod, container, stdin string, tty bool, command ...string) (s session, err error) {
	q := url.Values{"command": command, "output": {"1"}, "input": {"1"}}
	last := "stderr"
	if tty {
		q.Set("tty", "1")
		last = "resize"
	} else {
		q.Set("error", "1")
	}
	streams, done, err := k.open("/exec/default/"+pod+"-"+nodeName+"/"+container, q, nil, "error", "stdin", "stdout", last)
	if err != nil {
		return s, err
	}
	defer done()
	if tty {
		json.NewEncoder(streams["resize"]).Encode(map[string]int{"Height": 40, "Width": 100})
	}
	if _, err := io.WriteString(streams["stdin"], stdin); err != nil {
		return s, fmt.Errorf("write stdin: %w", err)
	}
	if !tty {
		streams["stdin"].Close()
	}
	var texts []string
	for _, t := range []string{"stdout", last, "error"} { // none prints more than is let through unread
		b := []byte{}
		if t != "resize" {
			if b, err = io.ReadAll(streams[t]); err != nil {
				return s, fmt.Errorf("read %s: %w", t, err)
			}
		}
		texts = append(texts, string(b))
	}
	code, err := exitCode(texts[2])
	return session{texts[0], texts[1], code}, err
}

// exitCode reads what comes over the error stream at the end.
func exitCode(answer string) (code int, err error) {
	var status struct {
		Status, Message string
		Details         struct {
			Causes []struct{ Reason, Message string }
		}
	}
	if err := json.Unmarshal([]byte(answer), &status); err != nil {
		return 0, fmt.Errorf("decode end of the stream %q: %w", answer, err)
	}
	if status.Status == "Success" {
		return 0, nil
	}
	for _, c := range status.Details.Causes {
		if c.Reason == "ExitCode" {
			_, err = fmt.Sscan(c.Message, &code)
			return code, err
		}
	}
	return 0, errors.New(status.Message)
}

// attach follows a container's output until it has the words.
func (k *kubelet) attach(pod, container, words string) (string, error) {
	streams, done, err := k.open("/attach/default/"+pod+"-"+nodeName+"/"+container, url.Values{"output": {"1"}, "error": {"1"}}, nil, "error", "stdout", "stderr")
	if err != nil {
		return "", err
	}
	defer done()
	var text strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(text.String(), words) {
		n, err := streams["stdout"].Read(buf)
		text.Write(buf[:n])
		if err != nil {
			return text.String(), fmt.Errorf("no %q in %q: %w", words, text.String(), err)
		}
	}
	return text.String(), nil
}

// forward sends an HTTP request to a port of a pod and returns the answer.
func (k *kubelet) forward(pod string, port int, path string) (string, error) {
	more := http.Header{"Port": {fmt.Sprint(port)}, "Requestid": {"1"}}
	streams, done, err := k.open("/portForward/default/"+pod+"-"+nodeName, nil, more, "error", "data")
	if err != nil {
		return "", err
	}
	defer done()
	streams["error"].Close() // as kubectl does: nothing is written to it
	fmt.Fprintf(streams["data"], "GET %s HTTP/1.0\r\n\r\n", path)
	streams["data"].Close()
	b, err := io.ReadAll(streams["data"])
	if err != nil {
		return "", fmt.Errorf("read forwarded answer: %w", err)
	}
	if problem, _ := io.ReadAll(streams["error"]); len(problem) > 0 {
		return string(b), fmt.Errorf("forward to %s: %s", pod, problem)
	}
	return string(b), nil
}
