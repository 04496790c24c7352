package engine

// PodSharedMemory is the source of the tmpfs mount, in a container's spec, that is the
// shared memory of its pod. It is a name, and no file.
const PodSharedMemory = "pod-shm"
