package spec

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ResolvedUser is the identity of a container's first process.
type ResolvedUser struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// Groups are the supplemental groups, in order, with GID among them.
	Groups []uint32 `json:"groups,omitempty"`
	// Home is the home directory in the image; empty when it names none.
	Home string `json:"home,omitempty"`
}

func (u ResolvedUser) oci() specs.User {
	return specs.User{UID: u.UID, GID: u.GID, AdditionalGids: slices.Clone(u.Groups)}
}

// LinuxContainerUser is u as a container's status reports it.
func LinuxContainerUser(u ResolvedUser) *runtimeapi.ContainerUser {
	out := &runtimeapi.LinuxContainerUser{Uid: int64(u.UID), Gid: int64(u.GID)}
	for _, g := range u.Groups {
		out.SupplementalGroups = append(out.SupplementalGroups, int64(g))
	}
	return &runtimeapi.ContainerUser{Linux: out}
}

// ResolveUser finds out as whom a container starts. The request's run_as_username
// or run_as_user comes first, then the image's USER in one of the forms name, uid,
// name:group, uid:gid, and then root. The request's run_as_group replaces the
// group; with none, it is that of the image's USER or of etc/passwd, else 0.
//
// Supplemental groups are the request's and, with the policy Merge, those that
// etc/group of the image lists the user in. It reads these two files below root,
// the mounted root file system, and nothing else.
//
// A name that the image does not know, an id out of range and a file that cannot
// be parsed are ErrInvalidArgument.
func ResolveUser(root, imageUser string, sc *runtimeapi.LinuxContainerSecurityContext) (ResolvedUser, error) {
	passwd, err := readInRoot(root, "etc/passwd", maxUserFile)
	if err != nil {
		return ResolvedUser{}, err
	}
	group, err := readInRoot(root, "etc/group", maxUserFile)
	if err != nil {
		return ResolvedUser{}, err
	}
	return resolveUser(accounts{passwd: passwd, group: group}, imageUser, sc)
}

func resolveUser(a accounts, imageUser string, sc *runtimeapi.LinuxContainerSecurityContext) (ResolvedUser, error) {
	who, groupName := "0", ""
	mustExist := false
	switch {
	case sc.GetRunAsUsername() != "":
		who, mustExist = sc.GetRunAsUsername(), true
	case sc.GetRunAsUser() != nil:
		who = strconv.FormatInt(sc.GetRunAsUser().GetValue(), 10)
	case sc.GetRunAsGroup() != nil:
		return ResolvedUser{}, invalidf("container has run_as_group without run_as_user or run_as_username")
	case imageUser != "":
		who, groupName, _ = strings.Cut(imageUser, ":")
		if who == "" { // ":group"
			who = "0"
		}
	}

	entry, err := a.user(who, mustExist)
	if err != nil {
		return ResolvedUser{}, err
	}
	gid := int64(entry.Gid)
	switch {
	case sc.GetRunAsGroup() != nil:
		gid = sc.GetRunAsGroup().GetValue()
	case groupName != "":
		if gid, err = a.groupID(groupName); err != nil {
			return ResolvedUser{}, err
		}
	}
	if !validID(gid) {
		return ResolvedUser{}, invalidf("group %d of user %s is outside 0–%d", gid, who, math.MaxInt32)
	}
	groups, err := a.supplemental(entry.Name, gid, sc)
	if err != nil {
		return ResolvedUser{}, err
	}
	return ResolvedUser{UID: uint32(entry.Uid), GID: uint32(gid), Groups: groups, Home: home(entry.Home)}, nil
}

// home keeps what can be an environment value and a place to be.
func home(dir string) string {
	if !strings.HasPrefix(dir, "/") || strings.ContainsRune(dir, 0) {
		return ""
	}
	return dir
}

// accounts are the contents of an image's user files.
type accounts struct{ passwd, group []byte }

// user finds an entry by name or number. A number without an entry stands for
// itself, with group 0, unless mustExist. A user whose name is a number is found by
// that number only, as everywhere else.
func (a accounts) user(who string, mustExist bool) (user.User, error) {
	id, numeric, err := parseID("user", who)
	if err != nil {
		return user.User{}, err
	}
	found, err := user.ParsePasswdFilter(bytes.NewReader(numbered(a.passwd, 2, 3)), func(u user.User) bool {
		if numeric {
			return int64(u.Uid) == id
		}
		return u.Name == who
	})
	switch {
	case err != nil:
		return user.User{}, invalidf("image file etc/passwd cannot be parsed: %v", err)
	case len(found) > 0:
		if !validID(int64(found[0].Uid)) {
			return user.User{}, invalidf("user %s has the id %d, outside 0–%d", who, found[0].Uid, math.MaxInt32)
		}
		return found[0], nil
	case !numeric || mustExist:
		return user.User{}, invalidf("user %q is not in the image's etc/passwd", who)
	}
	return user.User{Uid: int(id)}, nil
}

func (a accounts) groupID(name string) (int64, error) {
	id, numeric, err := parseID("group", name)
	if err != nil || numeric {
		return id, err
	}
	found, err := user.ParseGroupFilter(bytes.NewReader(numbered(a.group, 2)), func(g user.Group) bool { return g.Name == name })
	switch {
	case err != nil:
		return 0, invalidf("image file etc/group cannot be parsed: %v", err)
	case len(found) == 0:
		return 0, invalidf("group %q is not in the image's etc/group", name)
	}
	return int64(found[0].Gid), nil
}

// supplemental returns the sorted set of all groups of a process.
func (a accounts) supplemental(name string, primary int64, sc *runtimeapi.LinuxContainerSecurityContext) ([]uint32, error) {
	ids := append([]int64{primary}, sc.GetSupplementalGroups()...)
	if name != "" && sc.GetSupplementalGroupsPolicy() == runtimeapi.SupplementalGroupsPolicy_Merge {
		found, err := user.ParseGroupFilter(bytes.NewReader(numbered(a.group, 2)), func(g user.Group) bool { return slices.Contains(g.List, name) })
		if err != nil {
			return nil, invalidf("image file etc/group cannot be parsed: %v", err)
		}
		for _, g := range found {
			ids = append(ids, int64(g.Gid))
		}
	}
	groups := make([]uint32, 0, len(ids))
	for _, id := range ids {
		if !validID(id) {
			return nil, invalidf("supplemental group %d is outside 0–%d", id, math.MaxInt32)
		}
		groups = append(groups, uint32(id))
	}
	slices.Sort(groups)
	return slices.Compact(groups), nil
}

// parseID tells numbers from names: a number has nothing but digits.
func parseID(what, s string) (id int64, numeric bool, _ error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false, nil
	}
	id, err := strconv.ParseInt(s, 10, 64)
	if err != nil || !validID(id) {
		return 0, true, invalidf("%s id %s is outside 0–%d", what, s, math.MaxInt32)
	}
	return id, true, nil
}

// numbered keeps the lines of a colon-separated file that are no comments and
// whose given fields are numbers. The parser reads anything else as 0, which would
// make a damaged entry one of root.
func numbered(data []byte, fields ...int) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(data) {
		parts := bytes.Split(bytes.TrimSpace(line), []byte(":"))
		ok := !bytes.HasPrefix(parts[0], []byte("#"))
		for _, f := range fields {
			ok = ok && f < len(parts) && len(parts[f]) > 0 && len(bytes.Trim(parts[f], "0123456789")) == 0
		}
		if ok {
			out.Write(line)
		}
	}
	return out.Bytes()
}
