package main

import (
	"fmt"

	"github.com/cri-sandbox/cri-sandbox/podsandbox/rootfs"
)

type containersConfig struct {
	WritableLayer        string   `toml:"writable_layer" comment:"Where containers' root file systems are written to: sandbox, where the node sees none of their files; or host"`
	MaxWritableLayerSize byteSize `toml:"max_writable_layer_size" comment:"What one container may write to its root file system in the sandbox, and to each volume of its image; up to what the disk has"`
	MemoryVolumes        string   `toml:"memory_volumes" comment:"Where the files of emptyDir volumes of medium Memory are: sandbox, or host"`
}

// Where containers' root file systems, and volumes in memory, are written to.
const (
	layerSandbox = "sandbox"
	layerHost    = "host"
)

func defaultContainersConfig() containersConfig {
	return containersConfig{WritableLayer: layerSandbox, MaxWritableLayerSize: 1 << 50, MemoryVolumes: layerSandbox}
}

func (c containersConfig) validate() error {
	if c.WritableLayer != layerSandbox && c.WritableLayer != layerHost {
		return fmt.Errorf("config: containers.writable_layer %q is neither %s nor %s", c.WritableLayer, layerSandbox, layerHost)
	}
	if c.MemoryVolumes != layerSandbox && c.MemoryVolumes != layerHost {
		return fmt.Errorf("config: containers.memory_volumes %q is neither %s nor %s", c.MemoryVolumes, layerSandbox, layerHost)
	}
	return nil
}

func (c containersConfig) files() rootfs.Options {
	return rootfs.Options{
		OnHost: c.WritableLayer == layerHost, Bytes: uint64(c.MaxWritableLayerSize),
		MemoryOnHost: c.MemoryVolumes == layerHost,
	}
}
