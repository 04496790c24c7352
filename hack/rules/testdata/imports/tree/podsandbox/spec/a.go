package x

import _ "github.com/cri-sandbox/cri-sandbox/podsandbox"
import _ "github.com/cri-sandbox/cri-sandbox/podsandbox/gvisor"
import _ "k8s.io/cri-api/pkg/apis/runtime/v1"
