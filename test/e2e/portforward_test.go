package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// echoServer starts a container that echoes on the given addresses.
func (k streamKit) echoServer(podID string, pod *runtimeapi.PodSandboxConfig, addresses ...string) {
	k.Helper()
	c := testenv.ContainerConfig("echo", k.env.Images["web"])
	c.Args = append([]string{"echo"}, addresses...)
	k.start(podID, pod, c)
	k.logHas(pod, c, "listening")
}

// exchange sends size bytes and compares what comes back.
func exchange(f *forwarded, size int) error {
	data, errors, err := f.dial()
	if err != nil {
		return err
	}
	sent := make([]byte, size)
	rand.Read(sent)
	go data.Write(sent)
	got := sha256.New()
	n, err := io.CopyN(got, data, int64(size))
	if err != nil {
		msg, _ := io.ReadAll(errors)
		return fmt.Errorf("%d bytes came back: %w: %s", n, err, msg)
	}
	if want := sha256.Sum256(sent); !bytes.Equal(got.Sum(nil), want[:]) {
		return fmt.Errorf("what came back differs")
	}
	if err := data.Close(); err != nil {
		return err
	}
	// A stream that nobody reads holds up all others of its connection.
	_, err = io.Copy(io.Discard, data)
	return err
}

func TestPortForward(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod()
	k.echoServer(id, pod, "127.0.0.1:7000", "[::1]:7002")
	f := k.forward(id, 7000)
	var wg sync.WaitGroup
	errs := make([]error, 50)
	for i := range errs {
		wg.Go(func() { errs[i] = exchange(f, 10<<20) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	k.must(exchange(k.forward(id, 7000), 1000)) // and another client
	k.must(exchange(k.forward(id, 7002), 1000)) // IPv6 alone
	halfClose(k.kit, f)

	data, errors, err := k.forward(id, 7001).dial()
	k.must(err)
	msg, _ := io.ReadAll(errors)
	k.wants(string(msg), "nothing listens", "7001")
	if n, _ := data.Read(make([]byte, 1)); n != 0 {
		t.Error("a port that nobody listens on answers")
	}
}

func TestPortForwardToTheNode(t *testing.T) {
	k := streamKit{newKit(t)}
	id, pod := k.pod(func(p *runtimeapi.PodSandboxConfig) {
		p.Linux.SecurityContext = &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{Network: runtimeapi.NamespaceMode_NODE},
		}
	})
	k.echoServer(id, pod, "127.0.0.1:17391")
	f := k.forward(id, 17391)
	k.must(exchange(f, 1<<20))
	halfClose(k.kit, f)
}

// halfClose: each way can end alone.
func halfClose(k kit, f *forwarded) {
	k.Helper()
	data, _, err := f.dial()
	k.must(err)
	_, err = io.WriteString(data, "hello")
	k.must(err)
	k.must(data.Close())
	answer, _ := io.ReadAll(data)
	if !strings.HasSuffix(string(answer), "that were 5 bytes\n") {
		k.Errorf("answer %q", answer)
	}
}

func TestPortForwardBadRequests(t *testing.T) {
	k := newKit(t)
	id, _ := k.pod()
	for name, c := range map[string]struct {
		req  *runtimeapi.PortForwardRequest
		code codes.Code
	}{
		"no id":    {&runtimeapi.PortForwardRequest{Port: []int32{80}}, codes.InvalidArgument},
		"unknown":  {&runtimeapi.PortForwardRequest{PodSandboxId: "none", Port: []int32{80}}, codes.NotFound},
		"bad port": {&runtimeapi.PortForwardRequest{PodSandboxId: id, Port: []int32{80, 70000}}, codes.InvalidArgument},
		"negative": {&runtimeapi.PortForwardRequest{PodSandboxId: id, Port: []int32{-1}}, codes.InvalidArgument},
	} {
		if _, err := k.runtime().PortForward(k.ctx, c.req); err == nil {
			t.Errorf("%s: no error", name)
		} else {
			k.refused(err, c.code)
		}
	}
	_, err := k.runtime().StopPodSandbox(k.ctx, &runtimeapi.StopPodSandboxRequest{PodSandboxId: id})
	k.must(err)
	_, err = k.runtime().PortForward(k.ctx, &runtimeapi.PortForwardRequest{PodSandboxId: id, Port: []int32{80}})
	k.refused(err, codes.FailedPrecondition)
}
