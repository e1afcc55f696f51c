/*
 * Caffeine.java -- Caffeine (com.github.ben-manes.caffeine) as a driver of the suite: a bound, no
 * expiry. The protocol, the cases and the load are those of driver.h. Keys are strings, whose hash
 * is cached by the time they are asked for; values are arrays of bytes, of which a store makes a
 * copy. Threads are not pinned, and the cache does its upkeep where it does by default, in the
 * common pool.
 */
import com.github.benmanes.caffeine.cache.Cache;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;

final class Caffeine {
    static final int ENTRIES = 100_000, MANY = 1_000_000, BOUND = ENTRIES * 3 / 2;
    static final int ASIDE_BOUND = 100_000, FILL_BOUND = MANY * 3 / 2, FULL_KEYS = 100_000;
    static final int FEW_PICKS = 1 << 18, MANY_PICKS = 1 << 21, BATCH = 256, SET = 1 << 31;
    static final int HOT_KEY = 4711, VALUE = 64, LOADER_MS = 2, SETTLE = 2_000_000;
    static final long LOAD_SUM = 0x0123456789abcdefL, WARM_UP_NS = 2_000_000_000L;
    static final VarHandle WORDS =
        MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.nativeOrder());

    // ---- the load: lib_load.c ----

    /** splitmix64 */
    static final class Random {
        long state;

        Random(long seed) {
            state = seed;
        }

        long next() {
            long z = state += 0x9e3779b97f4a7c15L;
            z = (z ^ (z >>> 30)) * 0xbf58476d1ce4e5b9L;
            z = (z ^ (z >>> 27)) * 0x94d049bb133111ebL;
            return z ^ (z >>> 31);
        }

        int below(int count) {
            return (int) Long.remainderUnsigned(next(), count);
        }

        double unit() {
            return (next() >>> 11) * 0x1p-53;
        }
    }

    static String key(long number) {
        return String.format("user:%011d", number);
    }

    static String[] keys(int first, int count) {
        String[] keys = new String[count];
        for (int i = 0; i < count; i++)
            keys[i] = key(first + i);
        return keys;
    }

    static byte[] value(long number) {
        byte[] value = new byte[VALUE];
        Random random = new Random(number);
        long rest = LOAD_SUM;
        for (int i = 8; i < VALUE; i += 8) {
            long word = random.next();
            WORDS.set(value, i, word);
            rest -= word;
        }
        WORDS.set(value, 0, rest);
        return value;
    }

    static long sum(byte[] value) {
        long sum = 0;
        for (int i = 0; i < VALUE; i += 8)
            sum += (long) WORDS.get(value, i);
        return sum;
    }

    static int[] scatter(int entries) {
        Random random = new Random(99);
        int[] to = new int[entries];
        for (int i = 0; i < entries; i++)
            to[i] = i;
        for (int i = entries - 1; i > 0; i--) {
            int j = random.below(i + 1), swap = to[i];
            to[i] = to[j];
            to[j] = swap;
        }
        return to;
    }

    static double[] zipfShares(int entries) {
        double[] shares = new double[entries];
        double sum = 0;
        for (int i = 0; i < entries; i++)
            shares[i] = sum += Math.pow(i + 1, -0.99);
        for (int i = 0; i < entries; i++)
            shares[i] /= sum;
        return shares;
    }

    static final class Zipf {
        final double[] shares;
        final int[] to, guide;

        Zipf(int entries) {
            shares = zipfShares(entries);
            to = scatter(entries);
            guide = new int[entries + 1];
            int rank = 0;
            for (int part = 0; part <= entries; part++) {
                while (rank < entries - 1 && shares[rank] < (double) part / entries)
                    rank++;
                guide[part] = rank;
            }
        }

        int pick(Random random) {
            double point = random.unit();
            int part = (int) (point * shares.length), low = guide[part], high = guide[part + 1];
            while (low < high) {
                int middle = (low + high) >>> 1;
                if (shares[middle] < point)
                    low = middle + 1;
                else
                    high = middle;
            }
            return to[low];
        }
    }

    static void need(boolean condition) {
        if (!condition)
            throw new IllegalStateException("functional error");
    }

    // ---- the cache ----

    static Cache<String, byte[]> open(long bound) {
        return com.github.benmanes.caffeine.cache.Caffeine.newBuilder().maximumSize(bound).build();
    }

    Cache<String, byte[]> cache;
    String[] keys;
    int threads;
    String what, load;
    Worker[] workers;
    Zipf zipf;

    final class Worker {
        final int number;
        final byte[] value;
        Random random;
        int[] picks;
        int at;
        long ops, hits, tookNs;

        Worker(int number) {
            this.number = number;
            value = Caffeine.value(number);
        }

        int next() {
            if (zipf != null)
                return zipf.pick(random);
            return load.equals("hot") ? HOT_KEY : random.below(keys.length);
        }

        void pick() {
            Arrays.setAll(picks, i -> next());
            at = 0;
        }

        void hits() {
            long sum = 0;
            for (int i = at; i < at + BATCH; i++)
                sum += sum(cache.getIfPresent(keys[picks[i]]));
            need(sum == BATCH * LOAD_SUM);
            hits += BATCH;
        }

        void mixed() {
            long sum = 0, found = 0;
            for (int i = at; i < at + BATCH; i++)
                if (picks[i] < 0) {
                    cache.put(keys[picks[i] & ~SET], value.clone());
                } else {
                    sum += sum(cache.getIfPresent(keys[picks[i]]));
                    found++;
                }
            need(sum == found * LOAD_SUM);
            hits += found;
        }

        void aside() {
            long sum = 0, found = 0;
            for (int i = at; i < at + BATCH; i++) {
                String key = keys[picks[i]];
                byte[] got = cache.getIfPresent(key);
                if (got != null) {
                    sum += sum(got);
                    found++;
                } else {
                    cache.put(key, value.clone());
                }
            }
            need(sum == found * LOAD_SUM);
            hits += found;
        }

        void batch() {
            switch (what) {
                case "hit": hits(); break;
                case "mixed": mixed(); break;
                default: aside(); break;
            }
            ops += BATCH;
            at = (at + BATCH) % picks.length;
        }

        void runUntil(long sliceNs) {
            ops = hits = 0;
            long start = System.nanoTime();
            do {
                batch();
                tookNs = System.nanoTime() - start;
            } while (tookNs < sliceNs);
        }

        void fill() {
            int first = (int) ((long) keys.length * number / threads);
            int end = (int) ((long) keys.length * (number + 1) / threads);
            for (int i = first; i < end; i++)
                cache.put(keys[i], value.clone());
            ops = end - first;
        }

        void fullSet() {
            for (String key : keys)
                cache.put(key, value.clone());
            ops = keys.length;
        }

        void fullMiss() {
            long sum = 0;
            for (String key : keys)
                sum += sum(cache.get(key, k -> value.clone()));
            need(sum == keys.length * LOAD_SUM);
            ops = keys.length;
        }

        void stampede(String key) {
            byte[] got = cache.get(key, k -> {
                sleepMs(LOADER_MS);
                return value.clone();
            });
            need(sum(got) == LOAD_SUM);
            ops = 1;
        }
    }

    static void sleepMs(long ms) {
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            throw new IllegalStateException(e);
        }
    }

    // ---- orders ----

    /** All workers at once; the time until the last has ended. */
    long team(int count, Consumer<Worker> first, Consumer<Worker> job) throws Exception {
        CountDownLatch ready = new CountDownLatch(count), begin = new CountDownLatch(1);
        List<Thread> team = new ArrayList<>();
        long[] ends = new long[count];
        for (int i = 0; i < count; i++) {
            int number = i;
            team.add(new Thread(null, () -> {
                first.accept(workers[number]);
                ready.countDown();
                try {
                    begin.await();
                } catch (InterruptedException e) {
                    throw new IllegalStateException(e);
                }
                job.accept(workers[number]);
                ends[number] = System.nanoTime();
            }, "worker", 256 << 10));
        }
        for (Thread thread : team)
            thread.start();
        ready.await();
        sleepMs(count > 2 ? 5 : 0);
        long start = System.nanoTime();
        begin.countDown();
        for (Thread thread : team)
            thread.join();
        return Arrays.stream(ends).max().getAsLong() - start;
    }

    void answer(int count, long ns) {
        long ops = 0, hits = 0;
        for (int i = 0; i < count; i++) {
            ops += workers[i].ops;
            hits += workers[i].hits;
        }
        System.out.println(ops + " " + ns + " " + hits);
    }

    void slice(long sliceNs) throws Exception {
        for (Worker worker : workers) // no sequence is asked for twice there
            if (what.equals("aside") && worker.at > worker.picks.length / 2)
                worker.pick();
        team(threads, w -> w.runUntil(sliceNs / 10), w -> w.runUntil(sliceNs));
        answer(threads, (long) Arrays.stream(workers).mapToLong(w -> w.tookNs).average().orElse(0));
    }

    long next = MANY;

    void full() throws Exception {
        for (int i = 0; i < keys.length; i++)
            keys[i] = key(next++);
        answer(1, team(1, w -> { }, w -> {
            if (what.equals("miss"))
                w.fullMiss();
            else
                w.fullSet();
        }));
    }

    void fill() throws Exception {
        keys = null; // their hashes would be cached
        keys = keys(0, MANY);
        cache = open(FILL_BOUND);
        System.gc();
        answer(threads, team(threads, w -> { }, Worker::fill));
        cache = null;
    }

    static long heapBytes() {
        System.gc();
        Runtime runtime = Runtime.getRuntime();
        return runtime.totalMemory() - runtime.freeMemory();
    }

    /** Live bytes of the heap: the resident size follows the options of the collector. The keys are
     * made inside, as they belong to the entries. */
    void bytes() throws Exception {
        byte[] value = value(0);
        long before = heapBytes();
        cache = open(FILL_BOUND);
        for (int i = 0; i < MANY; i++)
            cache.put(key(i), value.clone());
        cache.cleanUp();
        System.out.println((heapBytes() - before) + " 1 " + cache.estimatedSize());
    }

    void stampede() throws Exception {
        String key = key(next++);
        answer(threads, team(threads, w -> cache.getIfPresent(key), w -> w.stampede(key)));
    }

    void go(long sliceNs) throws Exception {
        switch (what) {
            case "fill": fill(); break;
            case "bytes": bytes(); break;
            case "stampede": stampede(); break;
            case "set":
            case "miss": full(); break;
            default: slice(sliceNs); break;
        }
    }

    // ---- making ----

    void makePicks(int entries, int count) {
        keys = keys(0, entries);
        zipf = load.equals("zipf") ? new Zipf(entries) : null;
        for (Worker worker : workers) {
            worker.random = new Random(1 + worker.number);
            worker.picks = new int[count];
            worker.pick();
            Random random = new Random(1001 + worker.number);
            for (int i = 0; what.equals("mixed") && i < count; i++)
                if (random.below(10) == 0)
                    worker.picks[i] |= SET;
        }
    }

    void fillEach() {
        for (int i = 0; i < keys.length; i++)
            cache.put(keys[i], value(i));
        cache.cleanUp();
    }

    void makeSlices() throws Exception {
        if (what.equals("aside")) {
            makePicks(MANY, MANY_PICKS);
            cache = open(ASIDE_BOUND);
            for (int i = 0; i < SETTLE; i += BATCH)
                workers[i / BATCH % threads].batch();
        } else {
            makePicks(ENTRIES, FEW_PICKS);
            cache = open(BOUND);
            fillEach();
        }
        slice(WARM_UP_NS);
    }

    void make() throws Exception {
        workers = new Worker[threads];
        Arrays.setAll(workers, Worker::new);
        switch (what) {
            case "bytes": break;
            case "fill": fill(); break;
            case "stampede":
                cache = open(BOUND);
                for (int i = 0; i < 20; i++)
                    stampede();
                break;
            case "set":
            case "miss":
                keys = keys(0, FULL_KEYS);
                cache = open(ASIDE_BOUND);
                fillEach();
                for (int i = 0; i < 10; i++)
                    full();
                break;
            default: makeSlices(); break;
        }
    }

    static final List<String> CASES = List.of("hit-uniform", "hit-zipf", "hit-hot", "mixed-zipf",
        "aside-zipf", "set-full", "fill", "bytes", "stampede", "miss");

    public static void main(String[] args) throws Exception {
        if (args.length == 1 && args[0].equals("--cases")) {
            CASES.forEach(System.out::println);
            return;
        }
        if (args.length != 2 || !CASES.contains(args[0])) {
            System.err.println("usage: caffeine --cases | CASE THREADS");
            System.exit(2);
        }
        Caffeine driver = new Caffeine();
        String[] parts = args[0].split("-");
        driver.what = parts[0];
        driver.load = parts.length > 1 ? parts[1] : "";
        driver.threads = Integer.parseInt(args[1]);
        java.io.PrintStream out = System.out;
        System.setOut(new java.io.PrintStream(java.io.OutputStream.nullOutputStream()));
        driver.make(); // warms up: what it answers is for nobody
        System.setOut(out);
        System.out.println("ready");
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = lines.readLine()) != null;)
            driver.go(Long.parseLong(line.split(" ")[1]) * 1_000_000);
        System.exit(0);
    }
}
