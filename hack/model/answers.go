package model

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// transcript is all that a program was answered, a text a step, without what is
// another each time: ids are named by their places, moments are only there or not.
type transcript struct {
	names  map[string]string   // of ids
	count  map[string]int      // of the things that a place had
	events map[string][]string // by name
	steps  []string
}

func newTranscript() *transcript {
	return &transcript{names: map[string]string{}, count: map[string]int{}, events: map[string][]string{}}
}

// name gives a thing the name of its place and a number.
func (tr *transcript) name(id, place string) {
	if id == noID || tr.names[id] != "" {
		return
	}
	tr.count[place]++
	tr.names[id] = fmt.Sprintf("<%s, no. %d>", place, tr.count[place])
}

// grow adds to a file of the container and to one that its pod shares, and says what
// is in them by now.
const grow = "id; echo a line >> /grown; cat /grown; echo a line >> /dev/shm/grown; cat /dev/shm/grown"

// write adds the answers of a step, and what there is after it.
func (r *run) write(ctx context.Context, answers []answer) {
	known := r.known()
	for i, id := range known.pods {
		r.transcript.name(id, fmt.Sprint("pod ", i))
		for j, id := range known.ctrs[i] {
			r.transcript.name(id, fmt.Sprintf("container %d of pod %d", j, i))
		}
	}
	var b strings.Builder
	for _, a := range answers {
		if a.op.Kind == Quit && a.code != 0 {
			continue // it may go with its container, whatever it answers then
		}
		fmt.Fprintf(&b, "%s: %s\n", a.op, r.plain(a.reply, a.err))
	}
	for i, pod := range known.pods {
		resp, err := r.Runtime.PodSandboxStatus(ctx, &runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod})
		fmt.Fprintf(&b, "status of pod %d: %s\n", i, r.plain(resp, err))
		for j, ctr := range known.ctrs[i] {
			resp, err := r.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: ctr})
			fmt.Fprintf(&b, "status of container %d of pod %d: %s\n", j, i, r.plain(resp, err))
		}
	}
	for i, p := range r.states[0].Pods {
		for j, c := range p.Ctrs {
			if c.Phase == running {
				resp, err := r.exec(ctx, known.ctrs[i][j], grow, 0)
				fmt.Fprintf(&b, "in container %d of pod %d: %s\n", j, i, r.plain(resp, err))
			}
		}
	}
	pods, err := r.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	fmt.Fprintf(&b, "pods: %s\n", plainList(r, pods.GetItems(), err))
	containers, err := r.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	fmt.Fprintf(&b, "containers: %s\n", plainList(r, containers.GetContainers(), err))
	for i := range images {
		resp, err := r.Image.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: r.Images[i]}})
		fmt.Fprintf(&b, "status of image %d: %s\n", i, r.plain(resp, err))
	}
	r.transcript.steps = append(r.transcript.steps, b.String())
}

// writeEvents adds what subscribers were told over all lives, in this order of each thing.
func (r *run) writeEvents() {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(r.transcript.events)) {
		fmt.Fprintf(&b, "events of %s: %v\n", name, r.transcript.events[name])
	}
	r.transcript.steps = append(r.transcript.steps, b.String())
}

// plain is an answer's text without what is another each time.
func (r *run) plain(m proto.Message, err error) string {
	if err != nil {
		return r.plainText(fmt.Sprintf("%s: %s", status.Code(err), status.Convert(err).Message()))
	}
	if m == nil {
		return "done" // it was no request
	}
	m = proto.Clone(m)
	redact(m.ProtoReflect())
	return r.plainText(prototext.MarshalOptions{}.Format(m))
}

func plainList[M proto.Message](r *run, list []M, err error) string {
	if err != nil {
		return r.plain(nil, err)
	}
	var items []string
	for _, m := range list {
		items = append(items, "\n  "+r.plain(m, nil))
	}
	slices.Sort(items)
	return strings.Join(items, "")
}

func (r *run) plainText(text string) string {
	for id, name := range r.transcript.names {
		text = strings.ReplaceAll(text, id, name)
	}
	for _, own := range r.Own {
		text = strings.ReplaceAll(text, own, "<node>")
	}
	return text
}

// redact takes out of a message what differs between two runs, and what only repeats
// the pod's config.
func redact(m protoreflect.Message) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch name := f.FullName(); {
		case f.Name() == "timestamp" || strings.HasSuffix(string(f.Name()), "_at"):
			m.Set(f, protoreflect.ValueOfInt64(1)) // Range passes those over that are 0
		case name == "runtime.v1.PodSandboxStatus.network" || name == "runtime.v1.PodSandboxStatus.linux":
			m.Clear(f)
		case f.Name() == "url":
			m.Set(f, protoreflect.ValueOfString("<url>"))
		case f.Message() == nil || f.IsMap():
		case f.IsList():
			for i := range v.List().Len() {
				redact(v.List().Get(i).Message())
			}
		default:
			redact(v.Message())
		}
		return true
	})
}
