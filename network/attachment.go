package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
)

// attachmentVersion is that of the file's format. A field that an older daemon
// may ignore needs no new one.
const attachmentVersion = 1

// attachment is a pod's link to a network, as saved before the first plugin runs.
// It holds all that DEL and GC need, and is never changed.
type attachment struct {
	Version      int             `json:"version"`
	PodID        string          `json:"podID"`
	Interface    string          `json:"interface"`
	NetNS        string          `json:"netns"`
	Args         [][2]string     `json:"args,omitempty"`
	Capabilities map[string]any  `json:"capabilities,omitempty"`
	Config       json.RawMessage `json:"config"` // the configuration list, complete
}

// newAttachment plans to attach a pod to a network.
func newAttachment(pod Pod, list *libcni.NetworkConfigList) *attachment {
	return &attachment{
		Version:   attachmentVersion,
		PodID:     pod.ID,
		Interface: DefaultInterface,
		NetNS:     pod.NetNS,
		Args: [][2]string{
			{"IgnoreUnknown", "1"},
			{"K8S_POD_NAMESPACE", pod.Namespace},
			{"K8S_POD_NAME", pod.Name},
			{"K8S_POD_INFRA_CONTAINER_ID", pod.ID},
			{"K8S_POD_UID", pod.UID},
		},
		Capabilities: capabilitiesOf(pod, list),
		Config:       list.Bytes,
	}
}

func (a *attachment) runtimeConf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID:    a.PodID,
		NetNS:          a.NetNS,
		IfName:         a.Interface,
		Args:           a.Args,
		CapabilityArgs: a.Capabilities,
	}
}

// capabilitiesOf returns those capability arguments of a pod that a plugin of the
// list asks for, by the names that CNI's conventions give them. A pod may ask for
// more than the network offers: some networks map ports without this.
func capabilitiesOf(pod Pod, list *libcni.NetworkConfigList) map[string]any {
	offered := map[string]any{}
	if ports := portCapability(pod.PortMappings); len(ports) > 0 {
		offered["portMappings"] = ports
	}
	if limits := bandwidthCapability(pod.IngressBandwidth, pod.EgressBandwidth); len(limits) > 0 {
		offered["bandwidth"] = limits
	}
	if d := pod.DNS; len(d.Servers)+len(d.Searches)+len(d.Options) > 0 {
		offered["dns"] = map[string]any{"servers": d.Servers, "searches": d.Searches, "options": d.Options}
	}
	if pod.CgroupPath != "" {
		offered["cgroupPath"] = pod.CgroupPath
	}
	if len(pod.Annotations) > 0 {
		offered["io.kubernetes.cri.pod-annotations"] = pod.Annotations
	}
	wanted := map[string]any{}
	for _, plugin := range list.Plugins {
		for name, on := range plugin.Network.Capabilities {
			if arg, ok := offered[name]; on && ok {
				wanted[name] = arg
			}
		}
	}
	return wanted
}

// portArg is a port mapping as the portMappings capability spells it.
type portArg struct {
	HostPort      int32  `json:"hostPort"`
	ContainerPort int32  `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

func portCapability(mappings []PortMapping) []portArg {
	var args []portArg
	seen := map[portArg]bool{}
	for _, m := range mappings {
		arg := portArg{m.HostPort, m.ContainerPort, strings.ToLower(m.Protocol), m.HostIP}
		if m.HostPort == 0 || seen[arg] {
			continue
		}
		seen[arg] = true
		args = append(args, arg)
	}
	return args
}

// bandwidthCapability sets the burst to what one second lets through: enough for
// the largest segment that the kernel hands to a shaper, and not so much that a
// transfer ends before the limit is felt.
func bandwidthCapability(ingress, egress int64) map[string]int64 {
	burst := func(rate int64) int64 { return min(max(rate, 64<<10*8), math.MaxUint32) }
	args := map[string]int64{}
	if ingress > 0 {
		args["ingressRate"], args["ingressBurst"] = ingress, burst(ingress)
	}
	if egress > 0 {
		args["egressRate"], args["egressBurst"] = egress, burst(egress)
	}
	return args
}

// attachments is the directory of the records.
type attachments struct{ dir string }

// errDamaged marks a record that says no more than its name.
var errDamaged = errors.New("record is damaged")

func (s attachments) path(id string) string { return filepath.Join(s.dir, id+".json") }

func (s attachments) save(a *attachment) error {
	raw, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encode attachment %s: %w", a.PodID, err)
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("save attachment %s: %w", a.PodID, err)
	}
	crashpoint.Here("before cni record")
	// In place: half a record is one that lost its content, see the package comment.
	if err := os.WriteFile(s.path(a.PodID), raw, 0o600); err != nil {
		return fmt.Errorf("save attachment %s: %w", a.PodID, err)
	}
	crashpoint.Here("after cni record")
	return nil
}

// load returns errdefs.ErrNotFound for a pod that is not on record, and
// errDamaged for one whose record cannot be read.
func (s attachments) load(id string) (*attachment, error) {
	raw, err := os.ReadFile(s.path(id))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("attachment of pod %s: %w", id, errdefs.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("read attachment %s: %w", id, err)
	}
	a, err := decodeAttachment(raw)
	if err != nil {
		return nil, fmt.Errorf("read attachment %s: %w", id, err)
	}
	if a.PodID != id {
		return nil, fmt.Errorf("read attachment %s: it is of pod %q: %w", id, a.PodID, errDamaged)
	}
	return a, nil
}

func decodeAttachment(raw []byte) (*attachment, error) {
	var a attachment
	if err := json.Unmarshal(raw, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", errDamaged, err)
	}
	if a.Version > attachmentVersion {
		return nil, fmt.Errorf("version %d was written by a newer daemon: %w", a.Version, errdefs.ErrFailedPrecondition)
	}
	if a.Version < 1 || a.PodID == "" || a.Interface == "" || len(a.Config) == 0 {
		return nil, errDamaged
	}
	return &a, nil
}

// remove takes a pod off the record, the record itself last.
func (s attachments) remove(id string) error {
	crashpoint.Here("before cni record removal")
	if err := s.removeResult(id); err != nil {
		return err
	}
	crashpoint.Here("after cni result removal")
	if err := s.removeAddresses(id); err != nil {
		return err
	}
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove attachment %s: %w", id, err)
	}
	crashpoint.Here("after cni record removal")
	return nil
}

// ids returns the pods on record.
func (s attachments) ids() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	var ids []string
	for _, entry := range entries {
		id, ok := strings.CutSuffix(entry.Name(), ".json")
		if ok && validateID(id) == nil {
			ids = append(ids, id)
		}
	}
	return ids, nil
}
