package x

import _ "github.com/containerd/containerd/v2/core/images"
import _ "github.com/containernetworking/cni/libcni"
import _ "github.com/cri-sandbox/cri-sandbox/network"
