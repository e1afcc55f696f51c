/*
 * executor.c -- flight/executor: bounds, order, taking back, stopping, workers that cannot be made,
 * cannot start, or end too early. No job is ever lost: each is run, refused or the caller's (F7, P5).
 */
#include "rooms.h"

#include "flight/executor.h"

#include <sys/syscall.h>

struct task {
    struct job job;
    _Atomic int runs, refusals;
    aside_status status;
    int code;
    void *worker;
    pthread_t thread;
    struct gate *gate;
    bool dies;
};

static struct ledger ledger;
static struct mem mem;
static struct executor *executor;
static struct task tasks[64];
static struct gate gate;
static _Atomic int order[64], ran;

static void task_run(struct job *job, void *worker)
{
    struct task *task = container_of(job, struct task, job);
    task->worker = worker;
    task->thread = pthread_self();
    order[ran++] = (int)(task - tasks);
    if (task->gate)
        gate_pass(task->gate);
    task->runs++;
    if (task->dies)
        pthread_exit(NULL);
}

static void task_refuse(struct job *job, aside_status status, int code)
{
    struct task *task = container_of(job, struct task, job);
    task->status = status;
    task->code = code;
    task->refusals++;
}

static void begin_with(const struct executor_options *options, aside_alloc hooks)
{
    CHECK(mem_init(&mem, &hooks));
    executor = executor_new(&mem, options);
    CHECK(executor != NULL);
    memset((void *)tasks, 0, sizeof tasks);
    for (size_t i = 0; i < COUNT_OF(tasks); i++) {
        tasks[i].job.run = task_run;
        tasks[i].job.refuse = task_refuse;
    }
    gate_init(&gate);
    ran = 0;
}

static void begin(size_t threads, size_t queued)
{
    begin_with(&(struct executor_options){.max_threads = threads, .max_queued = queued},
               ledger_init(&ledger));
}

static void end(void)
{
    executor_stop(executor);
    executor_join(executor, CLOCK_NEVER);
    executor_unref(executor);
    WAIT_UNTIL(ledger.live_blocks == 0); /* a worker that was let go frees itself */
}

static aside_status submit(int i)
{
    return executor_submit(executor, &tasks[i].job);
}

static size_t queued_now(void)
{
    size_t queued, threads;
    executor_gauge(executor, &queued, &threads);
    return queued;
}

static size_t threads_now(void)
{
    size_t queued, threads;
    executor_gauge(executor, &queued, &threads);
    return threads;
}

/* Submits a task that stands at the gate. */
static void occupy(int i)
{
    tasks[i].gate = &gate;
    int before = gate.arrived;
    CHECK_STATUS(submit(i), ASIDE_OK);
    gate_wait_arrived(&gate, before + 1);
}

/* ---- bounds -------------------------------------------------------------------------------------- */

TEST(no_thread_is_made_before_it_is_needed)
{
    int before = threads_created();
    begin(4, 0);
    CHECK_INT(threads_created(), before);
    CHECK_INT(threads_now(), 0);
    CHECK_STATUS(submit(0), ASIDE_OK);
    WAIT_UNTIL(tasks[0].runs == 1);
    CHECK_INT(threads_created(), before + 1);
    end();
}

TEST(threads_and_queue_are_bounded)
{
    begin(3, 5);
    for (int i = 0; i < 3; i++)
        occupy(i);
    CHECK_INT(threads_now(), 3);
    for (int i = 3; i < 8; i++)
        CHECK_STATUS(submit(i), ASIDE_OK);
    CHECK_INT(queued_now(), 5);
    CHECK_STATUS(submit(8), ASIDE_E_BUSY);
    CHECK_INT(threads_now(), 3);
    WAIT_UNTIL(process_threads_named("aside-fetch") == 3);
    gate_open(&gate);
    for (int i = 0; i < 8; i++)
        WAIT_UNTIL(tasks[i].runs == 1);
    CHECK_INT(threads_now(), 3);
    CHECK_INT(tasks[8].runs + tasks[8].refusals, 0);
    end();
}

TEST(without_threads_every_job_is_the_callers)
{
    begin(0, 0);
    CHECK_STATUS(submit(0), ASIDE_E_BUSY);
    CHECK_INT(queued_now(), 0);
    end();
}

TEST(one_worker_runs_jobs_in_the_order_they_came)
{
    begin(1, 0);
    occupy(0);
    for (int i = 1; i < 20; i++)
        CHECK_STATUS(submit(i), ASIDE_OK);
    gate_open(&gate);
    WAIT_UNTIL(tasks[19].runs == 1);
    for (int i = 0; i < 20; i++)
        CHECK_INT(order[i], i);
    end();
}

TEST(a_worker_that_waits_is_used_again)
{
    begin(8, 0);
    for (int i = 0; i < 50; i++) {
        CHECK_STATUS(submit(i), ASIDE_OK);
        WAIT_UNTIL(tasks[i].runs == 1);
    }
    CHECK(threads_now() <= 3); /* it may not have lain down yet */
    end();
}

/* ---- taking back --------------------------------------------------------------------------------- */

TEST(a_job_can_be_taken_back_until_somebody_has_begun_it)
{
    begin(1, 0);
    occupy(0);
    for (int i = 1; i < 5; i++)
        CHECK_STATUS(submit(i), ASIDE_OK);
    CHECK(!executor_take(executor, &tasks[0].job));
    CHECK(executor_take(executor, &tasks[2].job));
    CHECK(!executor_take(executor, &tasks[2].job));
    CHECK(executor_take(executor, &tasks[4].job)); /* the last, and the first */
    CHECK(executor_take(executor, &tasks[1].job));
    CHECK_INT(queued_now(), 1);
    CHECK_STATUS(submit(4), ASIDE_OK); /* and be given again */
    gate_open(&gate);
    WAIT_UNTIL(tasks[4].runs == 1);
    CHECK_INT(tasks[3].runs, 1);
    CHECK_INT(tasks[1].runs + tasks[2].runs, 0);
    end();
}

TEST(a_stuck_job_can_be_taken_and_one_with_a_worker_on_its_way_not)
{
    begin(1, 0);
    occupy(0);
    CHECK_STATUS(submit(1), ASIDE_OK);
    CHECK_STATUS(submit(2), ASIDE_OK);
    CHECK(!executor_take_stuck(executor, &tasks[0].job));
    CHECK(executor_take_stuck(executor, &tasks[2].job));
    CHECK(executor_take_stuck(executor, &tasks[1].job));
    CHECK(!executor_take_stuck(executor, &tasks[1].job));
    gate_open(&gate);
    end();
    CHECK_INT(ran, 1);
}

/* ---- stopping ------------------------------------------------------------------------------------ */

TEST(stopping_refuses_what_is_queued_and_what_comes)
{
    begin(1, 0);
    occupy(0);
    for (int i = 1; i < 6; i++)
        CHECK_STATUS(submit(i), ASIDE_OK);
    executor_stop(executor);
    for (int i = 1; i < 6; i++) {
        CHECK_INT(tasks[i].refusals, 1);
        CHECK_STATUS(tasks[i].status, ASIDE_E_CLOSED);
        CHECK_INT(tasks[i].runs, 0);
    }
    CHECK_STATUS(submit(6), ASIDE_E_CLOSED);
    gate_open(&gate);
    end();
    CHECK_INT(tasks[0].runs, 1);
}

TEST(joining_joins_each_worker_once)
{
    begin(3, 0);
    for (int i = 0; i < 3; i++)
        occupy(i);
    gate_open(&gate);
    int before = threads_joined();
    end();
    CHECK_INT(threads_joined(), before + 3);
    CHECK_INT(process_threads_named("aside-fetch"), 0);
}

TEST(a_busy_worker_is_not_waited_for_past_the_deadline)
{
    begin(2, 0);
    occupy(0);
    occupy(1);
    executor_stop(executor);
    executor_join(executor, test_now_ns() + 10000000);
    CHECK_INT(tasks[0].runs + tasks[1].runs, 0);
    executor_unref(executor); /* the workers keep what they stand on */
    CHECK(ledger.live_blocks >= 3);
    gate_open(&gate);
    WAIT_UNTIL(ledger.live_blocks == 0);
    CHECK_INT(tasks[0].runs + tasks[1].runs, 2);
}

/* Two jobs wait behind a running one; the refusal of the first stands at a gate when that one ends
 * its thread, with the other still in the queue. */
static struct gate refusal_gate;

static void refuse_at_the_gate(struct job *job, aside_status status, int code)
{
    gate_pass(&refusal_gate);
    task_refuse(job, status, code);
}

static void *stop_main(void *arg)
{
    executor_stop(executor);
    return arg;
}

TEST(a_thread_that_dies_while_the_executor_stops_is_not_replaced)
{
    begin(1, 0);
    gate_init(&refusal_gate);
    tasks[0].dies = true;
    occupy(0);
    tasks[1].job.refuse = refuse_at_the_gate;
    CHECK_STATUS(submit(1), ASIDE_OK);
    CHECK_STATUS(submit(2), ASIDE_OK);
    int created = threads_created();
    pthread_t stopper = thread_start(stop_main, NULL);
    gate_wait_arrived(&refusal_gate, 1);
    CHECK_INT(queued_now(), 1);
    gate_open(&gate);
    WAIT_UNTIL(threads_now() == 0);
    CHECK_INT(tasks[2].refusals, 0);
    gate_open(&refusal_gate);
    thread_join(stopper);
    CHECK_STATUS(tasks[1].status, ASIDE_E_CLOSED);
    CHECK_STATUS(tasks[2].status, ASIDE_E_CLOSED);
    CHECK_INT(tasks[2].refusals, 1);
    CHECK_INT(threads_created(), created);
    end();
}

TEST(a_worker_that_was_not_waited_for_may_end_its_thread)
{
    begin(2, 0);
    for (int i = 0; i < 2; i++) {
        tasks[i].dies = i == 0;
        occupy(i);
    }
    executor_stop(executor);
    executor_join(executor, 0);
    executor_unref(executor);
    gate_open(&gate);
    WAIT_UNTIL(ledger.live_blocks == 0);
    CHECK_INT(tasks[0].runs + tasks[1].runs, 2);
    WAIT_UNTIL(process_threads_named("aside-fetch") == 0);
}

static void join_from_inside(struct job *job, void *worker)
{
    struct task *task = container_of(job, struct task, job);
    (void)worker;
    CHECK(executor_is_self(executor));
    executor_stop(executor);
    executor_join(executor, CLOCK_NEVER); /* all but this one */
    task->runs++;
}

TEST(a_worker_that_joins_does_not_wait_for_itself)
{
    begin(2, 0);
    CHECK(!executor_is_self(executor));
    tasks[0].job.run = join_from_inside;
    CHECK_STATUS(submit(0), ASIDE_OK);
    WAIT_UNTIL(tasks[0].runs == 1);
    end();
}

static void ask_whose(struct job *job, void *worker)
{
    CHECK(executor_is_self(executor));
    task_run(job, worker);
}

TEST(each_worker_is_known_to_be_one_the_newest_and_the_oldest)
{
    begin(3, 0);
    for (int i = 0; i < 3; i++) {
        tasks[i].job.run = ask_whose;
        occupy(i);
    }
    CHECK_INT(threads_now(), 3);
    CHECK(!executor_is_self(executor));
    gate_open(&gate);
    end();
    for (int i = 0; i < 3; i++)
        CHECK_INT(tasks[i].runs, 1);
}

/* A thread-specific destructor of a worker: its main function has returned by then. */
static pthread_key_t parting_key;
static bool parting_joins;

static void part(void *its_runs)
{
    gate_pass(&gate);
    CHECK(executor_is_self(executor));
    if (parting_joins)
        executor_join(executor, CLOCK_NEVER);
    (*(_Atomic int *)its_runs)++;
}

static void run_and_part(struct job *job, void *worker)
{
    struct task *task = container_of(job, struct task, job);
    (void)worker;
    CHECK_INT(pthread_setspecific(parting_key, (void *)&task->runs), 0);
    ran++;
}

static void begin_parting(bool joins)
{
    begin(1, 0);
    CHECK_INT(pthread_key_create(&parting_key, part), 0);
    parting_joins = joins;
    tasks[0].job.run = run_and_part;
    CHECK_STATUS(submit(0), ASIDE_OK);
    WAIT_UNTIL(ran == 1);
    executor_stop(executor);
    gate_wait_arrived(&gate, 1);
}

TEST(a_thread_that_joins_after_its_worker_has_ended_frees_that)
{
    begin_parting(true);
    gate_open(&gate);
    WAIT_UNTIL(tasks[0].runs == 1);
    CHECK_INT(ledger.live_blocks, 1); /* the executor itself */
    int joined = threads_joined();
    end();
    CHECK_INT(threads_joined(), joined);
}

static _Atomic int joiner_tid;

static void *join_main(void *arg)
{
    joiner_tid = (int)syscall(SYS_gettid);
    executor_join(executor, CLOCK_NEVER);
    return arg;
}

TEST(a_worker_is_one_until_its_thread_has_been_joined)
{
    begin_parting(false);
    pthread_t joiner = thread_start(join_main, NULL);
    WAIT_UNTIL(joiner_tid != 0 && thread_is_asleep(joiner_tid));
    gate_open(&gate);
    thread_join(joiner);
    CHECK_INT(tasks[0].runs, 1);
    end();
}

/* ---- hooks --------------------------------------------------------------------------------------- */

static _Atomic int starts, stops, failing_starts;
static int context;

static aside_status start_hook(void *ctx, void **worker)
{
    CHECK(ctx == &starts);
    if (starts++ < failing_starts)
        return (aside_status)-77;
    *worker = &context;
    return ASIDE_OK;
}

static void stop_hook(void *ctx, void *worker)
{
    CHECK(ctx == &starts && worker == &context);
    stops++;
}

static void begin_hooked(size_t threads)
{
    begin_with(&(struct executor_options){.max_threads = threads,
                                          .hooks = {start_hook, stop_hook, &starts}},
               ledger_init(&ledger));
    CHECK(executor_binds_fetches(executor));
}

TEST(each_worker_is_started_and_stopped_once)
{
    begin_hooked(2);
    occupy(0);
    occupy(1);
    CHECK_STATUS(submit(2), ASIDE_OK);
    gate_open(&gate);
    WAIT_UNTIL(tasks[2].runs == 1);
    for (int i = 0; i < 3; i++)
        CHECK(tasks[i].worker == &context);
    end();
    CHECK_INT(starts, 2);
    CHECK_INT(stops, 2);
}

TEST(a_worker_that_cannot_start_refuses_one_job)
{
    failing_starts = 1;
    begin_hooked(1);
    CHECK_STATUS(submit(0), ASIDE_OK);
    WAIT_UNTIL(tasks[0].refusals == 1);
    CHECK_STATUS(tasks[0].status, ASIDE_E_WORKER);
    CHECK_INT(tasks[0].code, -77);
    WAIT_UNTIL(threads_now() == 0);
    CHECK_STATUS(submit(1), ASIDE_OK);
    WAIT_UNTIL(tasks[1].runs == 1);
    end();
    CHECK_INT(stops, 1); /* never one that did not start */
}

static aside_status fail_at_the_gate(void *ctx, void **worker)
{
    (void)ctx, (void)worker;
    gate_pass(&gate);
    return ASIDE_E_NOMEM;
}

TEST(a_worker_that_cannot_start_and_whose_job_was_taken_back_refuses_none)
{
    begin_with(
        &(struct executor_options){.max_threads = 1, .hooks = {fail_at_the_gate, NULL, NULL}},
        ledger_init(&ledger));
    CHECK_STATUS(submit(0), ASIDE_OK);
    gate_wait_arrived(&gate, 1);
    CHECK(executor_take(executor, &tasks[0].job));
    gate_open(&gate);
    WAIT_UNTIL(threads_now() == 0);
    CHECK_INT(tasks[0].runs + tasks[0].refusals, 0);
    CHECK_STATUS(submit(1), ASIDE_OK); /* the next one is made and fails like any other */
    WAIT_UNTIL(tasks[1].refusals == 1);
    CHECK_STATUS(tasks[1].status, ASIDE_E_WORKER);
    end();
}

TEST(every_job_behind_a_worker_that_cannot_start_gets_an_answer)
{
    failing_starts = 3;
    begin_hooked(1);
    process_fail_thread(0, false);
    for (int i = 0; i < 6; i++)
        CHECK_STATUS(submit(i), ASIDE_OK);
    for (int i = 0; i < 6; i++)
        WAIT_UNTIL(tasks[i].runs + tasks[i].refusals == 1);
    end();
}

/* ---- workers that die ---------------------------------------------------------------------------- */

TEST(a_thread_that_dies_in_a_job_is_replaced)
{
    begin_hooked(1);
    tasks[0].dies = true;
    occupy(0);
    for (int i = 1; i < 4; i++) {
        tasks[i].dies = i < 3;
        CHECK_STATUS(submit(i), ASIDE_OK);
    }
    gate_open(&gate);
    WAIT_UNTIL(tasks[3].runs == 1);
    end();
    for (int i = 0; i < 4; i++)
        CHECK_INT(tasks[i].runs, 1);
    CHECK(starts >= 3);
    CHECK_INT(stops, starts); /* their contexts are given back as well */
}

/* ---- workers that cannot be made ----------------------------------------------------------------- */

TEST(without_a_thread_the_job_is_the_callers)
{
    begin(2, 0);
    process_fail_thread(1, false);
    CHECK_STATUS(submit(0), ASIDE_E_BUSY);
    CHECK_INT(queued_now(), 0);
    CHECK_INT(threads_now(), 0);
    CHECK_STATUS(submit(0), ASIDE_OK);
    WAIT_UNTIL(tasks[0].runs == 1);
    end();
}

TEST(without_memory_for_a_worker_the_job_is_the_callers)
{
    begin(2, 0);
    ledger.fail_at = 1;
    CHECK_STATUS(submit(0), ASIDE_E_BUSY);
    CHECK_INT(queued_now(), 0);
    end();
    CHECK_INT(tasks[0].runs + tasks[0].refusals, 0);
}

TEST(with_another_worker_a_job_waits_for_that_one)
{
    begin(2, 0);
    occupy(0);
    process_fail_thread(1, true);
    CHECK_STATUS(submit(1), ASIDE_OK);
    CHECK_INT(threads_now(), 1);
    process_fail_thread(0, false);
    gate_open(&gate);
    WAIT_UNTIL(tasks[1].runs == 1);
    end();
}

/* The dead worker's successor cannot be made: whoever waits in the queue must be told. */
TEST_LIMIT(a_job_whose_worker_cannot_be_replaced_gets_an_answer, 25)
{
    begin(1, 0);
    tasks[0].dies = true;
    occupy(0);
    CHECK_STATUS(submit(1), ASIDE_OK);
    process_fail_thread(1, false);
    gate_open(&gate);
    WAIT_UNTIL(tasks[1].runs + tasks[1].refusals == 1);
    end();
}

/* An allocator that stops at the gate once, and may have no memory then. */
static _Atomic bool stop_here;
static bool has_memory;
static aside_alloc counting;

static void *gated_malloc(size_t size, void *ctx)
{
    if (atomic_exchange(&stop_here, false)) {
        gate_pass(&gate);
        if (!has_memory)
            return NULL;
    }
    return counting.malloc(size, ctx);
}

static void begin_gated(void)
{
    counting = ledger_init(&ledger);
    aside_alloc hooks = counting;
    hooks.malloc = gated_malloc;
    begin_with(&(struct executor_options){.max_threads = 1}, hooks);
    atomic_store(&stop_here, true);
}

static void *submit_first(void *arg)
{
    *(aside_status *)arg = submit(0);
    return NULL;
}

/* While the only worker is being made, and then cannot be, another job is taken on. */
TEST_LIMIT(a_job_that_relied_on_a_worker_that_was_never_made_gets_an_answer, 25)
{
    aside_status first = ASIDE_OK;
    begin_gated();
    pthread_t thread = thread_start(submit_first, &first);
    gate_wait_arrived(&gate, 1);
    aside_status second = submit(1);
    gate_open(&gate);
    thread_join(thread);
    WAIT_UNTIL(first == ASIDE_E_BUSY || tasks[0].runs + tasks[0].refusals == 1);
    WAIT_UNTIL(second == ASIDE_E_BUSY || tasks[1].runs + tasks[1].refusals == 1);
    end();
}

TEST(a_worker_that_is_being_made_when_the_executor_stops_is_none)
{
    aside_status first = ASIDE_E_BUSY;
    int created = threads_created();
    begin_gated();
    has_memory = true;
    gate_init(&refusal_gate);
    tasks[0].job.refuse = refuse_at_the_gate;
    pthread_t submitter = thread_start(submit_first, &first);
    gate_wait_arrived(&gate, 1);
    CHECK_STATUS(submit(1), ASIDE_OK); /* it counts on the same worker */
    pthread_t stopper = thread_start(stop_main, NULL);
    gate_wait_arrived(&refusal_gate, 1);
    gate_open(&gate);
    thread_join(submitter); /* who finds the other job in the queue yet */
    CHECK_STATUS(first, ASIDE_OK);
    CHECK_STATUS(tasks[1].status, ASIDE_E_CLOSED);
    gate_open(&refusal_gate);
    thread_join(stopper);
    CHECK_STATUS(tasks[0].status, ASIDE_E_CLOSED);
    CHECK_INT(tasks[0].refusals + tasks[1].refusals, 2);
    CHECK_INT(threads_created(), created);
    CHECK_INT(threads_now(), 0);
    end();
}

/* ---- leftovers ----------------------------------------------------------------------------------- */

TEST(leftovers_that_hold_half_of_the_threads_clog)
{
    begin(5, 0);
    CHECK(!executor_is_clogged(executor));
    executor_note_leftover(executor, 1);
    executor_note_leftover(executor, 1);
    CHECK(!executor_is_clogged(executor)); /* 2 of 5 */
    executor_note_leftover(executor, 1);
    CHECK(executor_is_clogged(executor));
    executor_note_leftover(executor, -1);
    CHECK(!executor_is_clogged(executor));
    executor_note_leftover(executor, -1);
    executor_note_leftover(executor, -1);
    end();
}

TEST(without_leftovers_nothing_clogs)
{
    begin(0, 0);
    CHECK(!executor_is_clogged(executor));
    end();
}

/* ---- many at once -------------------------------------------------------------------------------- */

static _Atomic int taken_back, busy;

static void *submit_many(void *arg)
{
    struct task *own = arg;
    for (int i = 0; i < 16; i++) {
        if (executor_submit(executor, &own[i].job) != ASIDE_OK)
            busy++;
        else if (i % 3 == 0 && executor_take(executor, &own[i].job))
            taken_back++;
    }
    return NULL;
}

TEST(every_job_is_run_refused_or_taken_exactly_once)
{
    perturb(test_seed() | 1);
    for (long round = test_rounds(60); round > 0; round--) {
        pthread_t threads[4];
        begin(3, 20);
        taken_back = busy = 0;
        for (int i = 0; i < 4; i++)
            threads[i] = thread_start(submit_many, &tasks[16 * i]);
        if (round % 2)
            executor_stop(executor);
        for (int i = 0; i < 4; i++)
            thread_join(threads[i]);
        end();
        int answered = 0;
        for (size_t i = 0; i < COUNT_OF(tasks); i++) {
            CHECK(tasks[i].runs + tasks[i].refusals <= 1);
            answered += tasks[i].runs + tasks[i].refusals;
        }
        CHECK_INT(answered + taken_back + busy, COUNT_OF(tasks));
    }
    perturb(0);
}
