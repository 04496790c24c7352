package network

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/libcni"

	"github.com/cri-sandbox/cri-sandbox/internal/crashpoint"
	"github.com/cri-sandbox/cri-sandbox/internal/keylock"
)

const (
	// defaultTimeout is far above what a healthy network needs, and below the
	// kubelet's patience for RunPodSandbox (4 minutes) even with a roll-back.
	defaultTimeout = 60 * time.Second

	// statusTimeout bounds the STATUS of plugins: a status is asked for often,
	// and an answer that takes so long is one.
	statusTimeout = 5 * time.Second
)

// Options says where things are. All directories are absolute paths.
type Options struct {
	ConfDir  string   // configuration files; need not exist yet
	BinDirs  []string // plugin programs; the first directory that has one counts
	CacheDir string   // owned by this package; must outlive a reboot

	// ConfTemplate is a file from which SetPodCIDR makes a configuration; empty
	// means that another program does.
	ConfTemplate string

	// Timeout is the longest that one ADD or DEL of a pod, or GC, may take,
	// and the roll-back of a failed ADD again; 0 means a minute.
	Timeout time.Duration
}

// CNI attaches pods with the plugins of a CNI configuration. It is safe for
// concurrent use; see the package comment.
type CNI struct {
	confDir  string
	binDirs  []string
	cacheDir string
	timeout  time.Duration

	confTemplate string
	cni          libcni.CNI // for what is not about one pod
	records      attachments
	gcLock       gcLock
	podLocks     keylock.Locks // by pod; see the package comment
	status       statusMemo

	// ctx ends with Close.
	ctx   context.Context
	close context.CancelCauseFunc
}

var _ Network = (*CNI)(nil)

// NewCNI returns the network that the files in o.ConfDir configure. It touches
// nothing: a configuration may come later, and [CNI.Ready] says what is missing.
func NewCNI(o Options) (*CNI, error) {
	for _, dir := range append([]string{o.ConfDir, o.CacheDir}, o.BinDirs...) {
		if !filepath.IsAbs(dir) {
			return nil, fmt.Errorf("CNI directory %q is not an absolute path: %w", dir, errdefs.ErrInvalidArgument)
		}
	}
	if len(o.BinDirs) == 0 {
		return nil, fmt.Errorf("no directory of CNI plugins is given: %w", errdefs.ErrInvalidArgument)
	}
	if o.ConfTemplate != "" && !filepath.IsAbs(o.ConfTemplate) {
		return nil, fmt.Errorf("CNI template %q is not an absolute path: %w", o.ConfTemplate, errdefs.ErrInvalidArgument)
	}
	if o.Timeout <= 0 {
		o.Timeout = defaultTimeout
	}
	c := &CNI{
		confDir:      o.ConfDir,
		binDirs:      o.BinDirs,
		cacheDir:     o.CacheDir,
		timeout:      o.Timeout,
		confTemplate: o.ConfTemplate,
		cni:          libcni.NewCNIConfigWithCacheDir(o.BinDirs, o.CacheDir, &runner{}),
		records:      attachments{filepath.Join(o.CacheDir, "attachments")},
	}
	c.ctx, c.close = context.WithCancelCause(context.Background())
	return c, nil
}

// Timeout implements Network.
func (c *CNI) Timeout() time.Duration { return c.timeout }

// Close ends the plugins that run. What they were at stays on record, for the
// Detach or GC of the next daemon. Attached pods stay attached.
func (c *CNI) Close() { c.close(errClosed) }

// bound limits an operation to its timeout and to the life of c.
func (c *CNI) bound(parent context.Context, limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, closed := context.WithCancelCause(parent)
	stop := context.AfterFunc(c.ctx, func() { closed(errClosed) })
	ctx, cancel := context.WithTimeout(ctx, limit)
	return ctx, func() {
		stop()
		cancel()
		closed(nil)
	}
}

// Ready implements [Network]. It asks the plugins themselves where the
// configuration is of CNI 1.1.0 or later; a good answer counts for statusAge.
func (c *CNI) Ready(ctx context.Context) error {
	list, err := loadConfig(c.confDir)
	if err != nil {
		return err
	}
	for _, plugin := range pluginTypes(list) {
		if _, err := (&runner{}).FindInPath(plugin, c.binDirs); err != nil {
			return fmt.Errorf("network %s: %w", list.Name, err)
		}
	}
	if err := c.askPlugins(ctx, list); err != nil {
		return fmt.Errorf("network %s is not ready: %w", list.Name, classify(err, errdefs.ErrUnavailable))
	}
	return nil
}

// Config returns the configuration in use, as JSON, and its file's name.
func (c *CNI) Config() (file string, config []byte, err error) {
	file, list, err := findConfig(c.confDir)
	if err != nil {
		return "", nil, err
	}
	return file, list.Bytes, nil
}

// Attach implements [Network].
func (c *CNI) Attach(ctx context.Context, pod Pod) (_ Result, err error) {
	if err := pod.validate(); err != nil {
		return Result{}, err
	}
	if !namespaceExists(pod.NetNS) {
		return Result{}, fmt.Errorf("attach pod %s: no network namespace at %q: %w", pod.ID, pod.NetNS, errdefs.ErrFailedPrecondition)
	}
	list, err := loadConfig(c.confDir)
	if err != nil {
		return Result{}, fmt.Errorf("attach pod %s: %w", pod.ID, err)
	}
	if err := c.beginAttach(ctx, pod.ID); err != nil {
		return Result{}, fmt.Errorf("attach pod %s: %w", pod.ID, err)
	}
	defer func() { c.endAttach(pod.ID, err == nil) }()

	// An earlier try that was cut off.
	if err := c.detach(ctx, pod); err != nil {
		return Result{}, err
	}
	a := newAttachment(pod, list)
	if err := c.records.save(a); err != nil {
		return Result{}, classify(err, errdefs.ErrInternal)
	}
	result, err := c.add(ctx, list, a)
	if err != nil {
		return Result{}, c.rollBack(ctx, a, fmt.Errorf("attach pod %s to network %s: %w", pod.ID, list.Name, classify(err, errdefs.ErrUnavailable)))
	}
	return result, nil
}

// beginAttach keeps GC, and all else that concerns this pod, away. Each call that
// returns nil is followed by one of endAttach.
func (c *CNI) beginAttach(ctx context.Context, id string) error {
	ctx, cancel := c.bound(ctx, c.timeout)
	defer cancel()
	if err := c.gcLock.beginAttach(ctx, id); err != nil {
		return err
	}
	if err := c.podLocks.Lock(ctx, id); err != nil {
		c.gcLock.endAttach(id, false)
		return fmt.Errorf("wait for another operation on the pod: %w", err)
	}
	return nil
}

func (c *CNI) endAttach(id string, ok bool) {
	c.podLocks.Unlock(id)
	c.gcLock.endAttach(id, ok)
}

func (c *CNI) add(ctx context.Context, list *libcni.NetworkConfigList, a *attachment) (Result, error) {
	ctx, cancel := c.bound(ctx, c.timeout)
	defer cancel()
	crashpoint.Here("before cni add")
	res, err := c.libcni(a.PodID).AddNetworkList(ctx, list, a.runtimeConf())
	crashpoint.Here("after cni add")
	if err != nil {
		return Result{}, err
	}
	return resultOf(res, a.Interface)
}

// rollBack runs DEL after a failed ADD, whose context may have ended, and returns the
// error of the ADD. If DEL fails as well, the record stays for GC.
func (c *CNI) rollBack(ctx context.Context, a *attachment, cause error) error {
	if err := c.del(context.WithoutCancel(ctx), a); err != nil {
		return fmt.Errorf("%w; rolling it back failed, too: %v", cause, err)
	}
	return cause
}

// Detach implements [Network].
func (c *CNI) Detach(ctx context.Context, pod Pod) error {
	if err := validateID(pod.ID); err != nil {
		return err
	}
	if err := c.podLocks.Lock(ctx, pod.ID); err != nil {
		return fmt.Errorf("detach pod %s: wait for another operation on it: %w", pod.ID, err)
	}
	defer c.podLocks.Unlock(pod.ID)
	if err := c.detach(ctx, pod); err != nil {
		return err
	}
	c.gcLock.detached(pod.ID)
	return nil
}
