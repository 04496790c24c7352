package cgroup

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/containerd/errdefs"
	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

const dbusTimeout = 10 * time.Second

// Adopt tells systemd of the pod's scope, so that it neither removes its directory
// nor resets its limits, once the process pid was born in the group. It does
// nothing without systemd, below a parent that is not a slice, and for a scope
// that systemd knows already.
func (g *Group) Adopt(ctx context.Context, pid int, l Limits) error {
	properties := append([]dbus.Property{
		dbus.PropDescription("pod sandbox"),
		dbus.PropSlice(g.slice),
		dbus.PropPids(uint32(pid)),
		property("Delegate", true),
		property("DefaultDependencies", false),
		property("CollectMode", "inactive-or-failed"),
	}, scopeLimits(l, g.host.version)...)
	err := g.onScope(ctx, "UnitExists", func(conn *dbus.Conn, done chan<- string) error {
		_, err := conn.StartTransientUnitContext(ctx, g.scope, "fail", properties, done)
		return err
	})
	if err != nil {
		return fmt.Errorf("adopt scope %s: %w", g.scope, err)
	}
	return nil
}

// updateScope tells systemd of changed limits, which it would else reset on its
// next reload. A scope that is not adopted yet gets them with Adopt.
func (g *Group) updateScope(l Limits) error {
	properties := scopeLimits(l, g.host.version)
	if len(properties) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), dbusTimeout)
	defer cancel()
	err := g.onScope(ctx, "NoSuchUnit", func(conn *dbus.Conn, done chan<- string) error {
		done <- jobDone // there is no job
		return conn.SetUnitPropertiesContext(ctx, g.scope, true, properties...)
	})
	if err != nil {
		return fmt.Errorf("update scope %s: %w", g.scope, err)
	}
	return nil
}

// stopScope makes systemd forget the scope. It does not always notice by itself
// that a directory of its has been emptied and removed.
func (g *Group) stopScope(ctx context.Context) error {
	err := g.onScope(ctx, "NoSuchUnit", func(conn *dbus.Conn, done chan<- string) error {
		_, err := conn.StopUnitContext(ctx, g.scope, "replace", done)
		return err
	})
	if err != nil {
		return fmt.Errorf("stop scope %s: %w", g.scope, err)
	}
	return nil
}

const jobDone = "done"

// onScope makes a call to systemd and waits for the job that it starts. Without
// systemd or a scope it does nothing; an answer of the name expected is no error.
func (g *Group) onScope(ctx context.Context, expected string, call func(*dbus.Conn, chan<- string) error) error {
	if !g.host.systemd || g.scope == "" {
		return nil
	}
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return fmt.Errorf("connect to systemd: %w: %w", errdefs.ErrUnavailable, err)
	}
	defer conn.Close()
	done := make(chan string, 1)
	err = call(conn, done)
	if refused := (godbus.Error{}); errors.As(err, &refused) && refused.Name == "org.freedesktop.systemd1."+expected {
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != jobDone {
			return fmt.Errorf("job %s: %w", result, errdefs.ErrFailedPrecondition)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the job: %w", ctx.Err())
	}
}

// scopeLimits are the limits in systemd's words. Its numbers are unsigned, with
// the largest for none. Cpusets and unified settings have no words here: in a
// delegated scope systemd leaves those files alone.
func scopeLimits(l Limits, version int) (list []dbus.Property) {
	number := func(v int64) uint64 {
		if v < 0 {
			return math.MaxUint64
		}
		return uint64(v)
	}
	memory := "MemoryMax"
	if version == 1 {
		memory = "MemoryLimit"
	}
	if l.MemoryBytes != 0 {
		list = append(list, property(memory, number(l.MemoryBytes)))
	}
	if l.CPUShares != 0 && version == 1 {
		list = append(list, property("CPUShares", l.CPUShares))
	} else if l.CPUShares != 0 {
		list = append(list, property("CPUWeight", cgroup2.ConvertCPUSharesToCgroupV2Value(l.CPUShares)))
	}
	if l.CPUQuota < 0 {
		list = append(list, property("CPUQuotaPerSecUSec", uint64(math.MaxUint64)))
	} else if l.CPUQuota > 0 && l.CPUPeriod > 0 {
		perSecond := uint64(l.CPUQuota) * 1_000_000 / l.CPUPeriod
		// systemd counts in hundredths of a CPU and would round down.
		perSecond = (perSecond + 9_999) / 10_000 * 10_000
		list = append(list, property("CPUQuotaPerSecUSec", perSecond))
	}
	if l.PidsLimit != 0 {
		list = append(list, property("TasksMax", number(l.PidsLimit)))
	}
	return list
}

func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}
