package x

import _ "github.com/containernetworking/cni/libcni"
import _ "github.com/cri-sandbox/cri-sandbox/podsandbox/state/record"
import _ "github.com/cri-sandbox/cri-sandbox/cri"
import _ "github.com/cri-sandbox/cri-sandbox/image"
