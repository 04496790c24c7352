package gvisor

type procSysImages struct{}

func (i *procSysImages) close() {}
