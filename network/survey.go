package network

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"

	"github.com/cri-sandbox/cri-sandbox/internal/regular"
)

// Survey is what the configuration in use needs, and has.
type Survey struct {
	File       string // of the configuration
	Name       string // of the network
	CNIVersion string
	Plugins    []PluginSurvey // in the order of their first use

	// Firewall is true when a plugin of the configuration runs iptables or nft.
	Firewall bool
}

// PluginSurvey is one plugin's program.
type PluginSurvey struct {
	Type string
	// Err says that it is missing, does not answer VERSION, or does not know the
	// configuration's version; nil when it is fit.
	Err error
}

// Survey asks every plugin that the configuration names for its versions. No
// configuration is errdefs.ErrUnavailable.
func (c *CNI) Survey(ctx context.Context) (Survey, error) {
	file, list, err := findConfig(c.confDir)
	if err != nil {
		return Survey{}, err
	}
	ctx, cancel := c.bound(ctx, c.timeout)
	defer cancel()
	s := Survey{File: file, Name: list.Name, CNIVersion: list.CNIVersion}
	for _, kind := range pluginTypes(list) {
		known := slices.ContainsFunc(s.Plugins, func(p PluginSurvey) bool { return p.Type == kind })
		if !known {
			s.Plugins = append(s.Plugins, PluginSurvey{Type: kind, Err: c.askVersion(ctx, kind, list.CNIVersion)})
		}
	}
	for _, p := range list.Plugins {
		var conf struct {
			IPMasq bool `json:"ipMasq"`
		}
		_ = json.Unmarshal(p.Bytes, &conf)
		s.Firewall = s.Firewall || conf.IPMasq || p.Network.Type == "portmap" || p.Network.Type == "firewall"
	}
	return s, nil
}

func (c *CNI) askVersion(ctx context.Context, plugin, wanted string) error {
	info, err := c.cni.GetVersionInfo(ctx, plugin)
	if err != nil {
		return fmt.Errorf("ask CNI plugin %s for its versions: %w", plugin, err)
	}
	if wanted != "" && !slices.Contains(info.SupportedVersions(), wanted) {
		return fmt.Errorf("CNI plugin %s does not know version %s of the configuration: %w", plugin, wanted, errdefs.ErrFailedPrecondition)
	}
	return nil
}

// Stale names the pods that are on record as attached, or whose attachment was
// begun, and are not in valid: those that GC would detach.
func (c *CNI) Stale(valid []Pod) ([]string, error) {
	ids, err := c.idsOnRecord()
	if err != nil {
		return nil, classify(err, errdefs.ErrInternal)
	}
	for _, pod := range valid {
		delete(ids, pod.ID)
	}
	stale := make([]string, 0, len(ids))
	for id := range ids {
		stale = append(stale, id)
	}
	slices.Sort(stale)
	return stale, nil
}

// Lease is an address that the host-local plugin keeps for a pod.
type Lease struct {
	Address netip.Addr
	PodID   string
}

// Leases lists what host-local has given to pods of the configured network, by
// its files: one a lease, named by the address, with the pod's id in the first
// line. By CNI's definition all of them are this runtime's. Another address
// manager, and no configuration, have none that can be seen.
func (c *CNI) Leases() ([]Lease, error) {
	list, err := loadConfig(c.confDir)
	if err != nil {
		return nil, nil // Survey tells
	}
	var leases []Lease
	for _, dir := range leaseDirs(list) {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("list leases: %w", err)
		}
		for _, e := range entries {
			addr, err := netip.ParseAddr(e.Name())
			if err != nil {
				continue
			}
			raw, err := regular.Read(filepath.Join(dir, e.Name()), 4096)
			if err != nil {
				continue // given back meanwhile
			}
			id, _, _ := bytes.Cut(raw, []byte("\n"))
			leases = append(leases, Lease{Address: addr, PodID: strings.TrimSpace(string(id))})
		}
	}
	return leases, nil
}

// Release gives back a lease whose pod is on no record, by a DEL with the present
// configuration: host-local collects no garbage of its own.
func (c *CNI) Release(ctx context.Context, lease Lease) error {
	if err := validateID(lease.PodID); err != nil {
		return fmt.Errorf("release address %s: %w", lease.Address, err)
	}
	if err := c.podLocks.Lock(ctx, lease.PodID); err != nil {
		return fmt.Errorf("release address %s: %w", lease.Address, err)
	}
	defer c.podLocks.Unlock(lease.PodID)
	return c.detachDamaged(ctx, Pod{ID: lease.PodID}, fmt.Errorf("pod of address %s: %w", lease.Address, errdefs.ErrNotFound))
}

// leaseDirs are the directories of host-local for a network.
func leaseDirs(list *libcni.NetworkConfigList) []string {
	var dirs []string
	for _, p := range list.Plugins {
		var conf struct {
			IPAM struct {
				Type    string `json:"type"`
				DataDir string `json:"dataDir"`
			} `json:"ipam"`
		}
		if json.Unmarshal(p.Bytes, &conf) != nil || conf.IPAM.Type != "host-local" {
			continue
		}
		if conf.IPAM.DataDir == "" {
			conf.IPAM.DataDir = "/var/lib/cni/networks"
		}
		dirs = append(dirs, filepath.Join(conf.IPAM.DataDir, list.Name))
	}
	return dirs
}
