package object

// Wrapper is implemented by stores that add something to another store.
type Wrapper interface {
	Unwrap() Store
}

// As finds an extra ability, such as Checker, in store or in a store it wraps.
func As[T any](store Store) (T, bool) {
	for {
		if t, ok := store.(T); ok {
			return t, true
		}
		w, ok := store.(Wrapper)
		if !ok {
			var none T
			return none, false
		}
		store = w.Unwrap()
	}
}
