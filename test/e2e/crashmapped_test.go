package e2e

import (
	"context"
	"fmt"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func init() {
	lives["mapped"] = []call{
		{"own users", (*life).ownUsers}, {"run", (*life).run}, {"create", (*life).create}, {"start", (*life).start},
		{"volume", (*life).readVolume}, {"remove container", (*life).removeContainer}, {"stop", (*life).stop}, {"remove", (*life).remove},
	}
}

// ownUsers makes the pod one with a user namespace, and has its container mount an
// image.
func (l *life) ownUsers(context.Context) error {
	ownUsers(l.pod)
	l.ctr.Mounts = []*runtimeapi.Mount{imageAt("/vol", l.env.Images["busybox"], "etc")}
	return nil
}

func (l *life) readVolume(ctx context.Context) error {
	out, err := l.env.Client.Exec(ctx, l.ctrID, "/bin/head", "-c", "5", "/vol/passwd")
	if err == nil && out != "root:" {
		err = fmt.Errorf("the mounted image reads %q", out)
	}
	return err
}
