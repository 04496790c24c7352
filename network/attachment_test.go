package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
)

var update = flag.Bool("update", false, "rewrite the golden files of the present version")

// examplePod asks for everything.
func examplePod() Pod {
	return Pod{
		ID: "c0ffee", Namespace: "default", Name: "web", UID: "4711",
		NetNS: "/run/netns/c0ffee", CgroupPath: "/kubepods/pod4711",
		PortMappings: []PortMapping{
			{Protocol: "TCP", ContainerPort: 80, HostPort: 8080},
			{Protocol: "TCP", ContainerPort: 80, HostPort: 8080},
			{Protocol: "UDP", ContainerPort: 53, HostPort: 5353, HostIP: "127.0.0.1"},
			{Protocol: "TCP", ContainerPort: 81},
		},
		DNS:              DNSConfig{Servers: []string{"10.0.0.10"}, Searches: []string{"svc.cluster.local"}, Options: []string{"ndots:5"}},
		IngressBandwidth: 1_000,
		EgressBandwidth:  10_000_000_000,
		Annotations:      map[string]string{"example.com/a": "b"},
	}
}

const exampleList = `{"cniVersion":"1.0.0","name":"pods","plugins":[
	{"type":"bridge","capabilities":{"dns":true,"mac":true}},
	{"type":"portmap","capabilities":{"portMappings":true}},
	{"type":"bandwidth","capabilities":{"bandwidth":true,"cgroupPath":true}},
	{"type":"other","capabilities":{"io.kubernetes.cri.pod-annotations":true}}]}`

func exampleAttachment(t testing.TB) *attachment {
	t.Helper()
	list, err := parseList([]byte(exampleList))
	if err != nil {
		t.Fatal(err)
	}
	return newAttachment(examplePod(), list)
}

// The golden file is what daemons of this version leave behind, with the names
// that CNI's conventions give to arguments and capabilities.
func TestAttachmentGolden(t *testing.T) {
	golden := filepath.Join("testdata", "attachment-v1.json")
	s := attachments{t.TempDir()}
	if err := s.save(exampleAttachment(t)); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(s.path("c0ffee"))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the record is now\n%s", got.Bytes())
	}
	read, err := decodeAttachment(want)
	if err != nil {
		t.Fatal(err)
	}
	if read.PodID != "c0ffee" || read.NetNS != "/run/netns/c0ffee" || len(read.Args) != 5 || len(read.Capabilities) != 5 {
		t.Errorf("read back as %+v", read)
	}
}

func TestCapabilitiesOfOnlyAsAskedFor(t *testing.T) {
	list, err := parseList([]byte(`{"name":"n","plugins":[{"type":"a","capabilities":{"dns":true,"bandwidth":false}},{"type":"b"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	caps := capabilitiesOf(examplePod(), list)
	if _, ok := caps["dns"]; !ok || len(caps) != 1 {
		t.Errorf("got %v", caps)
	}
	list, err = parseList([]byte(exampleList))
	if err != nil {
		t.Fatal(err)
	}
	if caps := capabilitiesOf(Pod{ID: "x", PortMappings: []PortMapping{{Protocol: "tcp", ContainerPort: 1}}}, list); len(caps) != 0 {
		t.Errorf("a pod that asks for nothing gets %v", caps)
	}
}

func TestAttachmentsOnDisk(t *testing.T) {
	s := attachments{filepath.Join(t.TempDir(), "attachments")}
	if ids, err := s.ids(); err != nil || len(ids) != 0 {
		t.Errorf("before the first: %v, %v", ids, err)
	}
	if _, err := s.load("c0ffee"); !errdefs.IsNotFound(err) {
		t.Errorf("absent: %v", err)
	}
	want := exampleAttachment(t)
	if err := s.save(want); err != nil {
		t.Fatal(err)
	}
	got, err := s.load("c0ffee")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got.runtimeConf().Args, want.runtimeConf().Args) {
		t.Errorf("read back as %+v", got)
	}
	writeFile(t, s.path("empty"), "")
	writeFile(t, s.path("half"), `{"version":1,"podID":"ha`)
	writeFile(t, s.path("other"), `{"version":1,"podID":"c0ffee","interface":"eth0","config":{}}`)
	writeFile(t, s.path("newer"), `{"version":2,"podID":"newer","interface":"eth0","config":{}}`)
	writeFile(t, filepath.Join(s.dir, "README"), "")
	for _, id := range []string{"empty", "half", "other"} {
		if _, err := s.load(id); !errors.Is(err, errDamaged) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := s.load("newer"); !errdefs.IsFailedPrecondition(err) || errors.Is(err, errDamaged) {
		t.Errorf("newer: %v", err)
	}
	ids, err := s.ids()
	if want := []string{"c0ffee", "empty", "half", "newer", "other"}; err != nil || !slices.Equal(ids, want) {
		t.Errorf("ids are %v, %v", ids, err)
	}
	for range 2 {
		if err := s.remove("c0ffee"); err != nil {
			t.Error(err)
		}
	}
}

func FuzzDecodeAttachment(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "attachment-v1.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"version":1}`))
	f.Add(bytes.Replace(golden, []byte(`"version": 1`), []byte(`"version": 2`), 1))
	f.Add(bytes.Replace(golden, []byte(`"version": 1`), []byte(`"version": 0`), 1))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := decodeAttachment(raw)
		if err != nil {
			return
		}
		if a.Version != attachmentVersion || a.PodID == "" || a.Interface == "" || len(a.Config) == 0 {
			t.Errorf("accepted %+v", a)
		}
		_, _ = parseList(a.Config)
	})
}
