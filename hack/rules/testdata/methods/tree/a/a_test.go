package a

func (w Wide) inTest() {}

// Split is another type than the one of package a_test.
type Split struct{}

func (Split) m0()  {}
func (Split) m1()  {}
func (Split) m2()  {}
func (Split) m3()  {}
func (Split) m4()  {}
func (Split) m5()  {}
func (Split) m6()  {}
func (Split) m7()  {}
func (Split) m8()  {}
func (Split) m9()  {}
func (Split) m10() {}
func (Split) m11() {}
func (Split) m12() {}
func (Split) m13() {}
func (Split) m14() {}
func (Split) m15() {}
func (Split) m16() {}
func (Split) m17() {}
func (Split) m18() {}
func (Split) m19() {}
func (Split) m20() {}
func (Split) m21() {}
func (Split) m22() {}
func (Split) m23() {}
func (Split) m24() {}
func (Split) m25() {}
func (Split) m26() {}
func (Split) m27() {}
func (Split) m28() {}
func (Split) m29() {}
