package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/cri-sandbox/cri-sandbox/internal/regular"
)

// maxConfigBytes bounds a configuration file; real ones are under 10 KiB.
const maxConfigBytes = 1 << 20

// loadConfig is findConfig without the name.
func loadConfig(dir string) (*libcni.NetworkConfigList, error) {
	_, list, err := findConfig(dir)
	return list, err
}

// findConfig returns the first valid network configuration of a directory and its
// file's name, in the lexical order of these. A directory without one is
// errdefs.ErrUnavailable, with the reason as one sentence.
func findConfig(dir string) (string, *libcni.NetworkConfigList, error) {
	entries, err := os.ReadDir(dir) // sorted by name
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", nil, errorOf(errdefs.ErrUnavailable, "read CNI configuration directory %s: %w", dir, err)
	}
	var first error
	for _, entry := range entries {
		switch filepath.Ext(entry.Name()) {
		case ".conflist", ".conf", ".json":
		default:
			continue
		}
		if entry.IsDir() {
			continue
		}
		list, err := loadConfigFile(filepath.Join(dir, entry.Name()))
		if err == nil {
			return entry.Name(), list, nil
		}
		if first == nil {
			first = err
		}
	}
	if first != nil {
		return "", nil, classify(first, errdefs.ErrUnavailable)
	}
	return "", nil, errorOf(errdefs.ErrUnavailable, "no network is configured: no CNI configuration file (.conflist, .conf or .json) in %s", dir)
}

// loadConfigFile reads one file. The plugins that a list draws from a directory of
// its name are put into the list, so that its Bytes can stand alone in a record.
func loadConfigFile(path string) (*libcni.NetworkConfigList, error) {
	raw, err := regular.Read(path, maxConfigBytes)
	if err != nil {
		return nil, fmt.Errorf("read CNI configuration: %w", err)
	}
	if filepath.Ext(path) != ".conflist" {
		if raw, err = listOfOne(raw); err != nil {
			return nil, fmt.Errorf("parse CNI configuration %s: %w", path, err)
		}
	}
	list, err := parseList(raw)
	if err != nil {
		return nil, fmt.Errorf("parse CNI configuration %s: %w", path, err)
	}
	if !list.LoadOnlyInlinedPlugins {
		extra, err := pluginFiles(filepath.Join(filepath.Dir(path), list.Name))
		if err != nil {
			return nil, fmt.Errorf("parse CNI configuration %s: %w", path, err)
		}
		if len(extra) > 0 {
			if list, err = withPlugins(list, extra); err != nil {
				return nil, fmt.Errorf("parse CNI configuration %s: %w", path, err)
			}
		}
	}
	if len(list.Plugins) == 0 {
		return nil, fmt.Errorf("parse CNI configuration %s: it names no plugin", path)
	}
	return list, nil
}

// pluginFiles reads the plugins in a directory; one that does not exist has none.
// libcni's own function would open what is no regular file.
func pluginFiles(dir string) ([]*libcni.PluginConfig, error) {
	paths, err := libcni.ConfFiles(dir, []string{".conf"})
	if err != nil {
		return nil, err
	}
	var plugins []*libcni.PluginConfig
	for _, path := range paths {
		raw, err := regular.Read(path, maxConfigBytes)
		if err != nil {
			return nil, err
		}
		plugin, err := libcni.NetworkPluginConfFromBytes(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		plugins = append(plugins, plugin)
	}
	return plugins, nil
}

// parseList reads a configuration list and refuses what libcni would trip over
// only at ADD.
func parseList(raw []byte) (*libcni.NetworkConfigList, error) {
	list, err := libcni.NetworkConfFromBytes(raw)
	if err != nil {
		return nil, err
	}
	// The name becomes part of paths.
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return nil, fmt.Errorf("network name %q: %w", list.Name, err)
	}
	if v := list.CNIVersion; v != "" && !slices.Contains(version.All.SupportedVersions(), v) {
		return nil, fmt.Errorf("cniVersion %q is not one of %v", v, version.All.SupportedVersions())
	}
	return list, nil
}

// listOfOne makes a list of a configuration of a single plugin.
func listOfOne(raw []byte) ([]byte, error) {
	var conf struct {
		Name       string          `json:"name"`
		CNIVersion string          `json:"cniVersion"`
		Type       string          `json:"type"`
		Plugins    json.RawMessage `json:"plugins"`
	}
	if err := json.Unmarshal(raw, &conf); err != nil {
		return nil, err
	}
	if conf.Type == "" && conf.Plugins != nil {
		return nil, errors.New("it is a list of plugins, whose file name must end in .conflist")
	}
	return json.Marshal(map[string]any{
		"name":                   conf.Name,
		"cniVersion":             conf.CNIVersion,
		"loadOnlyInlinedPlugins": true,
		"plugins":                []json.RawMessage{raw},
	})
}

// withPlugins returns the list with more plugins behind its own.
func withPlugins(list *libcni.NetworkConfigList, extra []*libcni.PluginConfig) (*libcni.NetworkConfigList, error) {
	var fields map[string]any
	if err := json.Unmarshal(list.Bytes, &fields); err != nil {
		return nil, err
	}
	var plugins []json.RawMessage
	for _, p := range append(list.Plugins, extra...) {
		plugins = append(plugins, p.Bytes)
	}
	fields["plugins"] = plugins
	fields["loadOnlyInlinedPlugins"] = true
	raw, err := json.Marshal(fields)
	if err != nil {
		return nil, err
	}
	return parseList(raw)
}

// pluginTypes are the programs that a list runs, address managers included.
func pluginTypes(list *libcni.NetworkConfigList) []string {
	var types []string
	for _, p := range list.Plugins {
		types = append(types, p.Network.Type)
		if ipam := p.Network.IPAM.Type; ipam != "" {
			types = append(types, ipam)
		}
	}
	return types
}
