package gvisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor/guest"
)

// The Sentry's sysfs has no /sys/class/net, and no directory can be made in it. What
// containers see there is an image, mounted over /sys/class, of the interfaces that
// the sandbox was started with. It does not change: what a container with NET_ADMIN
// does to them shows in `ip link` alone, and counters, which would, are left out.

// sysClass is where the image is mounted.
const sysClass = "/sys/class"

// interfacesName is the file, in Config.Dir, that says which interfaces a sandbox was
// started with, for the daemons to come: the node's own may be without addresses.
const interfacesName = "interfaces.json"

// guestInterface is an interface as a container sees it. Of those on disk, fields may
// be added but not changed.
type guestInterface struct {
	Name     string           `json:"name"`
	Index    int              `json:"index"` // in the sandbox
	Address  net.HardwareAddr `json:"address,omitempty"`
	MTU      int              `json:"mtu"`
	Loopback bool             `json:"loopback,omitempty"`
}

// loopbackMTU is the Sentry's, which counts an Ethernet header, too.
const loopbackMTU = 65522

// guestInterfaces are those that the Sentry makes of its arguments, which it numbers
// in this order.
func guestInterfaces(args networkArgs) []guestInterface {
	var out []guestInterface
	for _, l := range args.LoopbackLinks {
		out = append(out, guestInterface{Name: l.Name, Index: len(out) + 1, Address: make(net.HardwareAddr, 6), MTU: loopbackMTU, Loopback: true})
	}
	for _, l := range args.FDBasedLinks {
		out = append(out, guestInterface{Name: l.Name, Index: len(out) + 1, Address: l.LinkAddress, MTU: l.MTU})
	}
	return out
}

// files are those of /sys/class/net/NAME that a program can rely on.
func (i guestInterface) files() guest.Dir {
	const up, loopback = 0x1, 0x8 // IFF_UP, IFF_LOOPBACK
	flags, kind, state := up, 1, "up"
	switch {
	case i.Loopback:
		flags, kind, state = up|loopback, 772, "unknown"
	case len(i.Address) == 0:
		kind = 0xfffe // ARPHRD_NONE
	}
	broadcast := slices.Repeat([]byte{0xff}, len(i.Address))
	if i.Loopback {
		broadcast = i.Address
	}
	dir := guest.Dir{}
	for name, value := range map[string]any{
		"address":   i.Address,
		"addr_len":  len(i.Address),
		"broadcast": net.HardwareAddr(broadcast),
		"carrier":   1,
		"flags":     fmt.Sprintf("%#x", flags),
		"ifindex":   i.Index,
		"iflink":    i.Index,
		"mtu":       i.MTU,
		"operstate": state,
		"type":      kind,
		"uevent":    fmt.Sprintf("INTERFACE=%s\nIFINDEX=%d", i.Name, i.Index),
	} {
		dir[name] = guest.File{Data: fmt.Append(nil, value, "\n")}
	}
	return dir
}

// sysClassImage is the content of /sys/class: what the Sentry has there, and the
// interfaces. product is the name of the node's board, empty where it has none.
func sysClassImage(interfaces []guestInterface, product string) ([]byte, error) {
	network := guest.Dir{}
	for _, i := range interfaces {
		network[i.Name] = i.files()
	}
	root := guest.Dir{"net": network, "power_supply": guest.Dir{}}
	if product != "" {
		root["dmi"] = guest.Dir{"id": guest.Dir{"product_name": guest.File{Data: []byte(product + "\n")}}}
	}
	return guest.Image(root)
}

// productName is what the Sentry shows as the name of the board.
func productName() string {
	b, err := os.ReadFile("/sys/devices/virtual/dmi/id/product_name")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// sysClassMount is the image that a pod's containers share, made at the first use.
type sysClassMount struct {
	mu    sync.Mutex
	image *os.File // +checklocks:mu
}

// maxShown is the number of interfaces that an image has room for.
const maxShown = 128

// open returns a descriptor of the image; nil where it is not known which interfaces
// the sandbox has, or where they are too many.
func (m *sysClassMount) open(dir string) (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.image == nil {
		interfaces, err := readInterfaces(dir)
		if err != nil || interfaces == nil || len(interfaces) > maxShown {
			return nil, err
		}
		image, err := sysClassImage(interfaces, productName())
		if err != nil {
			return nil, err
		}
		if m.image, err = memoryFile("sys-class", image); err != nil {
			return nil, err
		}
	}
	return reopen(m.image)
}

func (m *sysClassMount) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.image != nil {
		m.image.Close()
		m.image = nil
	}
}

func writeInterfaces(dir string, args networkArgs) error {
	b, err := json.Marshal(guestInterfaces(args))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, interfacesName), b, 0o600)
	}
	if err != nil {
		return fmt.Errorf("note interfaces: %w", err)
	}
	return nil
}

// readInterfaces returns nil for a sandbox of which none were noted: on the host's
// network, or of an older daemon.
func readInterfaces(dir string) ([]guestInterface, error) {
	b, err := os.ReadFile(filepath.Join(dir, interfacesName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read interfaces: %w", err)
	}
	var out []guestInterface
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, fmt.Errorf("read interfaces: %w", err)
	}
	return out, nil
}

// showInterfaces mounts the image, unless the request has something else in mind for
// the place: mounts of its own or masked paths there.
func (t *translator) showInterfaces(p *preparedSpec, spec *specs.Spec) error {
	inSysfs := false
	for _, m := range p.spec.Mounts {
		switch {
		case m.Destination == "/sys":
			inSysfs = m.Type == "sysfs"
		case overlap(m.Destination, sysClass):
			return nil
		}
	}
	if !inSysfs {
		return nil
	}
	if spec.Linux != nil && slices.ContainsFunc(spec.Linux.MaskedPaths, func(masked string) bool {
		return overlap(filepath.Clean(masked), sysClass)
	}) {
		return nil
	}
	if p.messageFiles() >= maxMessageFiles {
		return nil // what was asked for takes all that there is room for
	}
	image, err := t.sysClass.open(t.cfg.Dir)
	if err != nil || image == nil {
		return err
	}
	p.images = append(p.images, image)
	p.spec.Mounts = append(p.spec.Mounts, specs.Mount{
		Destination: sysClass, Type: imageMountType, Source: "/sys-class", Options: []string{"ro", "nosuid", "nodev", "noexec"},
	})
	return nil
}

// overlap reports whether one of two paths, other than the root, is in the other.
func overlap(a, b string) bool {
	return a != "/" && (within(a, b) || within(b, a))
}
