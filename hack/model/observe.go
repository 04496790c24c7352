package model

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// observation is what the runtime lists, in the model's terms. A pod that is not
// ready is stopped.
type observation struct {
	state state
	ids   places
}

// compare waits until the runtime lists one of the model's states, and keeps the
// states that it can be in.
func (r *run) compare(ctx context.Context) error {
	deadline := time.Now().Add(r.Patience)
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 50*time.Millisecond) {
		o, err := r.observe(ctx)
		if err == nil {
			if fit := slices.DeleteFunc(slices.Clone(r.states), func(s state) bool { return s.listed() != o.state }); len(fit) > 0 {
				r.states = fit
				r.learn(o)
				return r.compareViews(ctx, o)
			}
			err = differ("the runtime lists\n%s\nand the model says\n%s", o.state, r.states[0].listed())
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return err
		}
		time.Sleep(wait)
	}
}

// listed is what a caller can see of a state.
func (s state) listed() state {
	for i := range s.Pods {
		p := &s.Pods[i]
		if p.Phase == dead {
			p.Phase = stopped
		}
		for j := range p.Ctrs {
			if c := &p.Ctrs[j]; c.Phase != exited {
				c.Code = 0
			}
		}
	}
	return s
}

// learn takes over ids whose request was not answered.
func (r *run) learn(o observation) {
	r.ids.mu.Lock()
	defer r.ids.mu.Unlock()
	for i, p := range o.state.Pods {
		if p.Phase != absent {
			r.ids.pods[i] = o.ids.pods[i]
			r.events.expect(o.ids.pods[i], o.ids.pods[i])
		}
		for j, c := range p.Ctrs {
			if c.Phase != absent {
				r.ids.ctrs[i][j] = o.ids.ctrs[i][j]
				r.events.expect(o.ids.ctrs[i][j], o.ids.pods[i])
			}
		}
	}
}

// observe lists everything.
func (r *run) observe(ctx context.Context) (observation, error) {
	var o observation
	list, err := r.Runtime.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		return o, differ("list pods: %v", err)
	}
	for _, p := range list.Items {
		i := r.placeOf(p.GetMetadata().GetUid())
		if i < 0 || o.state.Pods[i].Phase != absent {
			return o, differ("a pod too many is listed: %v", p)
		}
		o.ids.pods[i] = p.Id
		o.state.Pods[i].Phase = stopped
		if p.State == runtimeapi.PodSandboxState_SANDBOX_READY {
			o.state.Pods[i].Phase = ready
		}
	}
	if err := r.observeContainers(ctx, &o); err != nil {
		return o, err
	}
	return o, r.observeImages(ctx, &o)
}

// placeOf finds the place of a pod, or -1.
func (r *run) placeOf(uid string) int {
	for i := range pods {
		if r.Pod(i).Metadata.Uid == uid {
			return i
		}
	}
	return -1
}

func (r *run) observeContainers(ctx context.Context, o *observation) error {
	list, err := r.Runtime.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return differ("list containers: %v", err)
	}
	for _, c := range list.Containers {
		i := slices.Index(o.ids.pods[:], c.PodSandboxId)
		j := int(c.GetMetadata().GetName()[0] - 'a')
		if i < 0 || j >= containers || o.ids.ctrs[i][j] != "" {
			return differ("a container too many is listed: %v", c)
		}
		o.ids.ctrs[i][j] = c.Id
		resp, err := r.Runtime.ContainerStatus(ctx, &runtimeapi.ContainerStatusRequest{ContainerId: c.Id})
		if err != nil {
			return differ("status of a listed container: %v", err)
		}
		if o.state.Pods[i].Ctrs[j], err = r.stateOf(resp.Status); err != nil {
			return err
		}
		if resp.Status.State != c.State {
			return differ("container %s is listed as %s and its status says %s", c.Id, c.State, resp.Status.State)
		}
	}
	return nil
}

// stateOf reads a container's status, and checks what of it must fit together.
func (r *run) stateOf(st *runtimeapi.ContainerStatus) (ctrState, error) {
	out := ctrState{
		Phase: map[runtimeapi.ContainerState]phase{
			runtimeapi.ContainerState_CONTAINER_CREATED: created, runtimeapi.ContainerState_CONTAINER_RUNNING: running,
			runtimeapi.ContainerState_CONTAINER_EXITED: exited,
		}[st.State],
		Code: int(st.ExitCode), Limit: int(st.GetResources().GetLinux().GetMemoryLimitInBytes() / unit),
		Image: slices.Index(r.Images, st.GetImage().GetImage()),
	}
	out.Script, _ = strconv.Atoi(st.Labels["script"])
	var times []int64
	switch out.Phase {
	case created:
		times = []int64{st.CreatedAt}
	case running:
		times = []int64{st.CreatedAt, st.StartedAt}
	case exited:
		times = []int64{st.CreatedAt, st.FinishedAt}
		if st.StartedAt != 0 {
			times = []int64{st.CreatedAt, st.StartedAt, st.FinishedAt}
		}
		if st.Reason == "" {
			return out, differ("an ended container without a reason: %v", st)
		}
	}
	if len(times) == 0 || times[0] == 0 || !slices.IsSorted(times) || out.Phase != exited && st.FinishedAt != 0 || out.Phase == created && st.StartedAt != 0 {
		return out, differ("the times of a container do not fit its state: %v", st)
	}
	return out, nil
}

func (r *run) observeImages(ctx context.Context, o *observation) error {
	resp, err := r.Image.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return differ("list images: %v", err)
	}
	for _, img := range resp.Images {
		i := slices.IndexFunc(r.Images, func(ref string) bool { return slices.Contains(img.RepoTags, ref) })
		if i >= images || i >= 0 && o.state.Images[i] {
			return differ("an image too many is listed: %v", img)
		}
		if i >= 0 { // a node may have others
			o.state.Images[i] = true
		}
	}
	return nil
}

// String is for people.
func (s state) String() string {
	var b strings.Builder
	for i, p := range s.Pods {
		if p.Phase == absent {
			continue
		}
		fmt.Fprintf(&b, "  pod %d %s", i, p.Phase)
		for j, c := range p.Ctrs {
			if c.Phase != absent {
				fmt.Fprintf(&b, ", container %d %s (code %d, limit %d, image %d)", j, c.Phase, c.Code, c.Limit, c.Image)
			}
		}
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "  images %v", s.Images)
	return b.String()
}
