package e2e

import (
	"archive/tar"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/cri-sandbox/cri-sandbox/hack/testenv"
)

// TestContainerStatusNamesTheImage: the kubelet asks for a container of an id and shows
// what the status says. It says the name that the user gave, or one of the image's, and
// goes on saying it when that is another image's by then.
func TestContainerStatusNamesTheImage(t *testing.T) {
	k := imageKit{ownNode(t, testenv.Options{})}
	layer := func(name string) string {
		return k.pushOnBusybox("renamed", k.plainLayer(tarEntry{Header: tar.Header{Name: name, Mode: 0o644}}))
	}
	ref := layer("first") + ":latest"
	first := k.pull(ref)
	id, pod := k.pod()
	create := func(name, image, asked string) string {
		t.Helper()
		cid, err := k.create(id, pod, k.shell(name, "true", func(c *runtimeapi.ContainerConfig) {
			c.Image = &runtimeapi.ImageSpec{Image: image, UserSpecifiedImage: asked, Annotations: map[string]string{"a": "b"}}
		}))
		k.must(err)
		return cid
	}
	want := map[string]string{
		create("named", first, strings.TrimSuffix(ref, ":latest")): ref,
		create("id", first, ""):          ref,
		create("id-asked", first, first): ref,
		create("by-name", ref, ""):       ref,
		create("prefix", first[:20], ""): ref,
	}
	layer("second")
	if second := k.pull(ref); second == first {
		t.Fatal("the tag has not moved")
	}
	digest := k.image(first).RepoDigests[0]
	want[create("late", first, ref)] = ref
	want[create("late-id", first, "")] = digest
	check := func() {
		t.Helper()
		list, err := k.runtime().ListContainers(k.ctx, &runtimeapi.ListContainersRequest{Filter: &runtimeapi.ContainerFilter{PodSandboxId: id}})
		k.must(err)
		if len(list.Containers) != len(want) {
			t.Errorf("%d containers, want %d", len(list.Containers), len(want))
		}
		for _, c := range list.Containers {
			st, name := k.status(c.Id), c.Metadata.Name
			if c.Image.GetImage() != want[c.Id] || st.Image.GetImage() != want[c.Id] {
				t.Errorf("%s: image %q in the list and %q in the status, want %q", name, c.Image.GetImage(), st.Image.GetImage(), want[c.Id])
			}
			if c.ImageId != first || st.ImageId != first || c.ImageRef != digest || st.ImageRef != digest || st.Image.Annotations["a"] != "b" {
				t.Errorf("%s: in the list %v, in the status %v", name, c, st)
			}
		}
	}
	check()
	k.removeImage(first)
	_, err := k.env.Restart(k.ctx)
	k.must(err)
	check()
}
