package a

func (Wide) m30() {}
func (Wide) m31() {}
func (Wide) m32() {}
func (Wide) m33() {}
func (Wide) m34() {}
func (Wide) m35() {}
func (Wide) m36() {}
func (Wide) m37() {}
func (Wide) m38() {}
func (Wide) m39() {}
