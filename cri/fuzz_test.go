package cri_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/fakenode"
)

// maxRequests of one input; more only make it slow.
const maxRequests = 24

// methods are those of both services, from their descriptors.
func methods() []protoreflect.MethodDescriptor {
	var out []protoreflect.MethodDescriptor
	for _, name := range []protoreflect.FullName{"runtime.v1.RuntimeService", "runtime.v1.ImageService"} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			panic(err) // the API has another name now
		}
		all := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range all.Len() {
			out = append(out, all.Get(i))
		}
	}
	return out
}

// oftener are methods without which the others do little.
var oftener = []string{"RunPodSandbox", "RunPodSandbox", "CreateContainer", "CreateContainer", "CreateContainer", "StartContainer", "StartContainer"}

// fuzzNode makes a node for all inputs of a process.
func fuzzNode(f testing.TB) *fakenode.Node {
	f.Helper()
	if why := fakenode.Missing(); why != "" {
		f.Skip(why)
	}
	n, err := fakenode.New(context.Background())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := n.Close(); err != nil {
			f.Error(err)
		}
	})
	return n
}

// FuzzRequests sends structured random requests of every method to the whole
// server. None may be answered Unknown or Internal, which say that the defect is
// ours (a panic is one), none may hang, and when all pods are removed nothing may
// be left.
func FuzzRequests(f *testing.F) {
	n := fuzzNode(f)
	for seed := range uint64(20) {
		f.Add(randomBytes(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) { requests(t, n, data) })
}

// TestServerTakesRandomRequests: a fixed number of runs of the fuzzer, with inputs that
// differ each time.
func TestServerTakesRandomRequests(t *testing.T) {
	n := fuzzNode(t)
	first := uint64(time.Now().UnixNano())
	for i := range uint64(300) {
		requests(t, n, randomBytes(first+i))
		if t.Failed() {
			t.Fatalf("the input is randomBytes(%d)", first+i)
		}
	}
}

func randomBytes(seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 2))
	data := make([]byte, 3000)
	for i := range data {
		data[i] = byte(r.Uint32())
	}
	return data
}

func requests(t testing.TB, n *fakenode.Node, data []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	_, err := n.Client.Image.PullImage(ctx, &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: n.Images[0]}})
	if err != nil {
		t.Fatal(err)
	}
	all, r := methods(), fakenode.NewRandom(n, data)
	var sent []string
	for range maxRequests {
		if r.Empty() {
			break
		}
		m := all[r.Below(len(all))]
		if i := r.Below(2 * len(oftener)); i < len(oftener) {
			m = named(all, oftener[i])
		}
		in, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
		if err != nil {
			t.Fatal(err)
		}
		req := r.Request(in.New().Interface())
		err = call(ctx, n, r, m, req)
		sent = append(sent, fmt.Sprintf("%s %v\n    %v", m.Name(), req, err))
		if c := status.Code(err); c == codes.Unknown || c == codes.Internal || c == codes.DeadlineExceeded {
			t.Errorf("%s is answered with %v; the requests:", m.Name(), err)
			break
		}
	}
	if err := n.RemoveAll(ctx); err != nil {
		t.Errorf("remove all: %v", err)
	}
	if left, err := n.Left(ctx); err != nil || len(left) > 0 {
		t.Errorf("left: %q, %v; the requests:", left, err)
	}
	if t.Failed() {
		for _, s := range sent {
			t.Log(s)
		}
	}
}

func named(all []protoreflect.MethodDescriptor, name string) protoreflect.MethodDescriptor {
	for _, m := range all {
		if string(m.Name()) == name {
			return m
		}
	}
	panic("no method " + name)
}

// call makes one call; a stream is read to its end, but for that of events.
func call(ctx context.Context, n *fakenode.Node, r *fakenode.Random, m protoreflect.MethodDescriptor, req proto.Message) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		return err
	}
	method := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	reply := out.New().Interface()
	if m.IsStreamingServer() {
		return readStream(ctx, n, method, req, reply)
	}
	if err := n.Client.Conn.Invoke(ctx, method, req, reply); err != nil {
		return err
	}
	switch reply := reply.(type) {
	case *runtimeapi.RunPodSandboxResponse:
		r.Pods = append(r.Pods, reply.PodSandboxId)
	case *runtimeapi.CreateContainerResponse:
		r.Containers = append(r.Containers, reply.ContainerId)
	}
	return nil
}

func readStream(ctx context.Context, n *fakenode.Node, method string, req, reply proto.Message) error {
	s, err := n.Client.Conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if err := errors.Join(s.SendMsg(req), s.CloseSend()); err != nil {
		return err
	}
	if _, events := req.(*runtimeapi.GetEventsRequest); events {
		if header, _ := s.Header(); header != nil {
			return nil
		}
	}
	for {
		if err := s.RecvMsg(reply); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}
