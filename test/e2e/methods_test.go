package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// accepting are the methods to which every request that can be decoded is a good
// one: what they are asked for is listed, whatever it is. An empty request is good
// to all of them, which TestRequestsThatAreEmpty holds.
var accepting = []string{
	"Version", "Status", "RuntimeConfig", "ImageFsInfo", "GetContainerEvents", "ListMetricDescriptors",
	"ListPodSandbox", "ListContainers", "ListContainerStats", "ListPodSandboxStats", "ListPodSandboxMetrics",
	"StreamPodSandboxes", "StreamContainers", "StreamContainerStats", "StreamPodSandboxStats", "StreamPodSandboxMetrics",
}

// emptyIsGood are methods that take an empty request for one that changes nothing
// or filters nothing, and refuse others.
var emptyIsGood = []string{"UpdateRuntimeConfig", "ListImages", "StreamImages"}

// unwritten are methods that answer Unimplemented.
var unwritten = []string{"CheckpointContainer", "CheckpointPod", "RestorePod"}

// eachMethod calls f with every method of both services, from their descriptors.
func eachMethod(f func(protoreflect.MethodDescriptor)) {
	for _, name := range []protoreflect.FullName{"runtime.v1.RuntimeService", "runtime.v1.ImageService"} {
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			panic(err) // the API has another name now
		}
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range methods.Len() {
			f(methods.Get(i))
		}
	}
}

func methodPath(m protoreflect.MethodDescriptor) string {
	return fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
}

// tryMethod makes one call with any request and returns the first error, or nil once it
// is accepted: a stream need not end.
func tryMethod(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, req any, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t, err := protoregistry.GlobalTypes.FindMessageByName(m.Output().FullName())
	if err != nil {
		return err
	}
	reply := t.New().Interface()
	if !m.IsStreamingServer() {
		return conn.Invoke(ctx, methodPath(m), req, reply, opts...)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, methodPath(m), opts...)
	if err == nil {
		err = s.SendMsg(req)
	}
	if err == nil {
		err = s.CloseSend()
	}
	if err != nil {
		return err
	}
	if m.Name() == "GetContainerEvents" {
		if header, err := s.Header(); header != nil {
			return err // it stands, and nothing happens
		}
	}
	if err = s.RecvMsg(reply); errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// TestRequestsThatAreEmpty: a request that says nothing is good, or the caller is told
// that it is bad.
func TestRequestsThatAreEmpty(t *testing.T) {
	k := newKit(t)
	eachMethod(func(m protoreflect.MethodDescriptor) {
		name := string(m.Name())
		in, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
		k.must(err)
		want := codes.InvalidArgument
		switch {
		case slices.Contains(accepting, name), slices.Contains(emptyIsGood, name):
			want = codes.OK
		case slices.Contains(unwritten, name):
			want = codes.Unimplemented
		}
		if err := tryMethod(k.ctx, k.env.Client.Conn, m, in.New().Interface()); status.Code(err) != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	})
}

// bytesCodec sends what is no message.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) ([]byte, error) {
	if b, ok := v.([]byte); ok {
		return b, nil
	}
	return proto.Marshal(v.(proto.Message))
}

func (bytesCodec) Unmarshal(b []byte, v any) error { return proto.Unmarshal(b, v.(proto.Message)) }

// TestRequestsThatAreMalformed: bytes that cannot be decoded get gRPC's own answer, by any
// method, and the daemon goes on.
func TestRequestsThatAreMalformed(t *testing.T) {
	k := newKit(t)
	eachMethod(func(m protoreflect.MethodDescriptor) {
		err := tryMethod(k.ctx, k.env.Client.Conn, m, []byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f}, grpc.ForceCodec(bytesCodec{}))
		if status.Code(err) != codes.Internal || !strings.Contains(err.Error(), "unmarshal") {
			t.Errorf("%s: %v, want the library's answer", m.Name(), err)
		}
	})
	_, err := k.runtime().Version(k.ctx, &runtimeapi.VersionRequest{})
	k.must(err)
}

func TestUpdateRuntimeConfigAndListImagesBadRequests(t *testing.T) {
	k := newKit(t)
	_, err := k.runtime().UpdateRuntimeConfig(k.ctx, &runtimeapi.UpdateRuntimeConfigRequest{
		RuntimeConfig: &runtimeapi.RuntimeConfig{NetworkConfig: &runtimeapi.NetworkConfig{PodCidr: "10.0.0.0/99"}},
	})
	k.refused(err, codes.InvalidArgument, "10.0.0.0/99")
	filter := &runtimeapi.ImageFilter{Image: &runtimeapi.ImageSpec{Image: "UPPER/Case@"}}
	_, err = k.env.Client.Image.ListImages(k.ctx, &runtimeapi.ListImagesRequest{Filter: filter})
	k.refused(err, codes.InvalidArgument)
	s, err := k.env.Client.Image.StreamImages(k.ctx, &runtimeapi.StreamImagesRequest{Filter: filter})
	k.must(err)
	_, err = s.Recv()
	k.refused(err, codes.InvalidArgument)
}

// wholeRun tells whether no test was left out.
func wholeRun() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return false
		}
	}
	return true
}

// untested lists what the tests, by the calls that they made, did not show of a
// method: that it works, that it refuses a request, and that it refuses bytes.
func untested(calls map[string]map[testenv.Outcome]int) []string {
	var missing []string
	eachMethod(func(m protoreflect.MethodDescriptor) {
		name := string(m.Name())
		if slices.Contains(unwritten, name) {
			return
		}
		var ok, refused, malformed bool
		for o := range calls[name] {
			switch {
			case o.Malformed:
				malformed = o.Code != codes.OK
			case o.Code == codes.OK:
				ok = true
			case o.Code == codes.InvalidArgument, o.Code == codes.NotFound, o.Code == codes.FailedPrecondition:
				refused = true
			}
		}
		var lacks []string
		if !ok {
			lacks = append(lacks, "success")
		}
		if !refused && !slices.Contains(accepting, name) {
			lacks = append(lacks, "bad input")
		}
		if !malformed {
			lacks = append(lacks, "malformed input")
		}
		if len(lacks) > 0 {
			missing = append(missing, fmt.Sprintf("%s: no test of %s", name, strings.Join(lacks, ", ")))
		}
	})
	return missing
}

// TestUntestedSeesWhatIsMissing holds the check that TestMain makes.
func TestUntestedSeesWhatIsMissing(t *testing.T) {
	full := map[string]map[testenv.Outcome]int{}
	eachMethod(func(m protoreflect.MethodDescriptor) {
		full[string(m.Name())] = map[testenv.Outcome]int{
			{Code: codes.OK}: 1, {Code: codes.NotFound}: 1, {Code: codes.Internal, Malformed: true}: 1,
		}
	})
	if got := untested(full); len(got) > 0 {
		t.Errorf("of all calls there are missing: %q", got)
	}
	delete(full["StartContainer"], testenv.Outcome{Code: codes.OK})
	delete(full["ExecSync"], testenv.Outcome{Code: codes.NotFound})
	delete(full, "Version")
	if got := untested(full); len(got) != 3 {
		t.Errorf("missing: %q, want three", got)
	}
}
