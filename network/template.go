package network

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/containerd/errdefs"
	"k8s.io/klog/v2"

	"github.com/cri-sandbox/cri-sandbox/internal/regular"
)

// renderedName is the configuration that is made from the template.
const renderedName = "10-cri-sandbox-net.conflist"

// templateData is what a template can name. The names are containerd's, so that
// one template serves both.
type templateData struct {
	PodCIDR       string   // the first range
	PodCIDRRanges []string // all of them
	Routes        []string // a default route for each family of addresses
}

// SetPodCIDR is told the addresses of the node's pods: prefixes, separated by
// commas. With Options.ConfTemplate it writes the configuration that the template
// makes of them, unless another one is in use; without, whoever installs the
// network does that, and nothing happens. An empty string changes nothing.
//
// A malformed prefix is errdefs.ErrInvalidArgument, a template that cannot be
// read or makes no configuration errdefs.ErrFailedPrecondition. The file is
// replaced as a whole.
func (c *CNI) SetPodCIDR(cidrs string) error {
	if cidrs == "" {
		return nil
	}
	data, err := parsePodCIDR(cidrs)
	if err != nil {
		return err
	}
	if c.confTemplate == "" {
		klog.InfoS("Pod addresses are set and no template is configured; a network has to come from elsewhere", "cidr", cidrs)
		return nil
	}
	if name, _, err := findConfig(c.confDir); err == nil && name != renderedName {
		klog.InfoS("Pod addresses are set and a network is configured already; the template is not used", "cidr", cidrs, "file", name)
		return nil
	}
	content, err := renderConfig(c.confTemplate, data)
	if err != nil {
		return fmt.Errorf("render CNI template %s: %w: %w", c.confTemplate, err, errdefs.ErrFailedPrecondition)
	}
	if err := replaceFile(filepath.Join(c.confDir, renderedName), content); err != nil {
		return fmt.Errorf("write CNI configuration: %w", err)
	}
	klog.InfoS("Wrote the network configuration", "cidr", cidrs, "file", renderedName)
	return nil
}

func parsePodCIDR(cidrs string) (templateData, error) {
	var d templateData
	families := map[bool]bool{}
	for part := range strings.SplitSeq(cidrs, ",") {
		p, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return d, fmt.Errorf("pod CIDR %q: %w: %w", part, err, errdefs.ErrInvalidArgument)
		}
		d.PodCIDRRanges = append(d.PodCIDRRanges, p.String())
		families[p.Addr().Unmap().Is4()] = true
	}
	d.PodCIDR = d.PodCIDRRanges[0]
	if families[true] {
		d.Routes = append(d.Routes, "0.0.0.0/0")
	}
	if families[false] {
		d.Routes = append(d.Routes, "::/0")
	}
	return d, nil
}

// renderConfig makes a configuration that this package would take.
func renderConfig(path string, data templateData) ([]byte, error) {
	raw, err := regular.Read(path, maxConfigBytes)
	if err != nil {
		return nil, err
	}
	t, err := template.New(filepath.Base(path)).Parse(string(raw))
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.Execute(&out, data); err != nil {
		return nil, err
	}
	list, err := parseList(out.Bytes())
	if err != nil {
		return nil, err
	}
	if len(list.Plugins) == 0 {
		return nil, errors.New("it names no plugin")
	}
	return out.Bytes(), nil
}

// replaceFile writes beside and renames: a configuration is never half there.
func replaceFile(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		os.Remove(tmp)
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}
