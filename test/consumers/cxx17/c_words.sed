# sed -Ez: what c_words.h cannot do. Lines stay lines.
s/_Atomic\(([^()]*)\)/\1/g
s/\bnew\b/new_/g

# A function's parameter of type void *, which C turns into any pointer without a cast, becomes an any_pointer of that name.
:constant
s/(\n[a-z][^;{}()]*\([^;{}]*const void \*)([a-z][a-z_]*[a-z])((,[^;{}()]*)?\)\n\{)/\1\2_\3 any_pointer<const void> \2 = {\2_};/
t constant
:variable
s/(\n[a-z][^;{}()]*\([^;{}]*void \*)([a-z][a-z_]*[a-z])((,[^;{}()]*)?\)\n\{)/\1\2_\3 any_pointer<void> \2 = {\2_};/
t variable
