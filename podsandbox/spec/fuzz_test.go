package spec

import (
	"encoding/json"
	"errors"
	"math"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// classified fails for an error that would reach the kubelet as Unknown.
func classified(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, class := range []error{errdefs.ErrInvalidArgument, errdefs.ErrFailedPrecondition, errdefs.ErrNotImplemented} {
		if errors.Is(err, class) {
			return
		}
	}
	t.Errorf("error has no class: %v", err)
}

func encode(t interface{ Fatal(...any) }, m proto.Message) []byte {
	data, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzValidate sends arbitrary requests through the validators; what they accept
// has to make a spec that is within its promises.
func FuzzValidate(f *testing.F) {
	f.Add(encode(f, basePod()), encode(f, baseContainer()))
	f.Add([]byte{}, []byte{})
	f.Fuzz(func(t *testing.T, podBytes, containerBytes []byte) {
		pod, container := &runtimeapi.PodSandboxConfig{}, &runtimeapi.ContainerConfig{}
		if proto.Unmarshal(podBytes, pod) != nil || proto.Unmarshal(containerBytes, container) != nil {
			return
		}
		classified(t, ValidatePod(pod))
		err := ValidateContainer(container, pod)
		classified(t, err)
		if err != nil || container.GetLinux().GetSecurityContext().GetSeccomp().GetProfileType() == runtimeapi.SecurityProfile_Localhost ||
			container.GetLinux().GetSecurityContext().GetSeccompProfilePath() != "" { // the profile is a file of the host
			return
		}
		spec, err := Container(Input{Pod: pod, Container: container, User: ResolvedUser{UID: 1}, Image: ocispec.ImageConfig{Cmd: []string{"/x"}}})
		classified(t, err)
		if err != nil {
			return
		}
		if _, err := json.Marshal(spec); err != nil {
			t.Error(err)
		}
		for _, m := range spec.Mounts {
			if !path.IsAbs(m.Destination) || path.Clean(m.Destination) != m.Destination || m.Destination == "/" {
				t.Errorf("mount destination %q", m.Destination)
			}
		}
		for key := range spec.Annotations {
			if strings.HasPrefix(key, "io.kubernetes.cri-o.") {
				t.Errorf("annotation %q", key)
			}
		}
		if len(spec.Process.Capabilities.Effective) > len(spec.Process.Capabilities.Ambient) {
			t.Errorf("capabilities %+v of a user that is not root", spec.Process.Capabilities)
		}
	})
}

// FuzzResolveUser takes the files and the USER of a hostile image.
func FuzzResolveUser(f *testing.F) {
	f.Add([]byte(testPasswd), []byte(testGroup), "alice:wheel", "", int64(-1), int64(0))
	f.Add([]byte("a:x:1:-1\n"), []byte("a:x:1:a,b\n"), "1:1", "a", int64(1), int64(1))
	f.Add([]byte("a:x:damaged:1::/:/bin/sh\n"), []byte(""), "a", "", int64(-1), int64(0))
	f.Add([]byte("a:x:4294967295:1::/:/bin/sh\n"), []byte(""), "a", "", int64(-1), int64(0))
	f.Add([]byte("a:x:1:4294967295::/:/bin/sh\n"), []byte(""), "a", "", int64(-1), int64(0))
	f.Add([]byte("a:x:1:1::/\x00:/bin/sh\n"), []byte("g:x:4294967295:a\n"), "a", "", int64(-1), int64(0))
	f.Add([]byte("a:x:1:1::/\x00:/bin/sh\n"), []byte(""), "a", "", int64(-1), int64(0))
	f.Add([]byte(""), []byte(""), "4294967295:4294967295", "", int64(-1), int64(0))
	f.Add([]byte(""), []byte(""), "", "", int64(math.MaxInt32)+1, int64(0))
	f.Fuzz(func(t *testing.T, passwd, group []byte, imageUser, name string, uid, gid int64) {
		a := accounts{passwd: passwd, group: group}
		sc := &runtimeapi.LinuxContainerSecurityContext{RunAsUsername: name}
		if uid >= 0 {
			sc.RunAsUser, sc.RunAsGroup = id(uid), id(gid)
		}
		u, err := resolveUser(a, imageUser, sc)
		if err != nil {
			classified(t, err)
			return
		}
		if u.UID > math.MaxInt32 || u.GID > math.MaxInt32 || len(u.Groups) == 0 || slices.Max(u.Groups) > math.MaxInt32 || strings.ContainsRune(u.Home, 0) {
			t.Errorf("got %+v", u)
		}
		// Root only where a number says so.
		if who, _, _ := strings.Cut(imageUser, ":"); name == "" && uid < 0 && u.UID == 0 && who != "" && strings.Trim(who, "0") != "" {
			if !strings.Contains(string(passwd), ":0") {
				t.Errorf("user %q became root", imageUser)
			}
		}
	})
}

func FuzzDecodeSeccomp(f *testing.F) {
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38,"args":[{"index":5,"value":1,"op":"SCMP_CMP_EQ"}]}]}`))
	f.Add([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64"}],"syscalls":[{"name":"a","includes":{"caps":["CAP_KILL"],"minKernel":"4.8"},"excludes":{"arches":["arm"]}}]}`))
	f.Add([]byte(`{"syscalls":[null]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := DecodeSeccomp(data, nil)
		if err != nil {
			classified(t, err)
			return
		}
		if err := checkSeccomp(got); err != nil {
			t.Errorf("the result would be refused: %v", err)
		}
	})
}

func FuzzStopSignal(f *testing.F) {
	f.Add("SIGRTMIN+3")
	f.Add("9")
	f.Fuzz(func(t *testing.T, s string) {
		sig, err := StopSignal(s, nil)
		if err == nil && (sig < 1 || sig > rtMax) {
			t.Errorf("%q is signal %d", s, sig)
		}
		classified(t, err)
	})
}
