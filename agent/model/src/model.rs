//! Loads one model with tract and runs it, some rows at a time.

use std::path::Path;

use serin_protocol::frame::{InferFault, LoadFault};
use tract_onnx::Onnx;
use tract_onnx::tract_hir::internal::{
    Arc, Framework, InferenceModel, OutletId, TDim, TValue, TVec, ToDim, TractError, TractErrorContext,
    TractResult, TypedModel, TypedSimplePlan, TypedSimpleState, ensure, tvec,
};

use super::exhaustion::tells_of_exhaustion;
use super::graph::Element;
use super::tensors::{column, elements, rounded, tensor};
use super::typed::{begin_anew, largest_value, tells_missing, typed};
use super::{branches, graph, nnef, operators, panics, softmax, steps};
use serin_pipeline::{Column, Fed, Feed, Numbers};

/// Most rows run at once. More gain nothing on one core.
pub const ROWS_AT_ONCE: usize = 16;

/// Most bytes of the largest intermediate value over all rows run at once. A model with more takes so
/// long for a row that running rows together saves nothing, and costs memory a device does not have.
const BATCH_BYTES: usize = 256 << 10;

/// Longest error text passed on; tract's can hold whole graphs.
const MAX_ERROR_CHARS: usize = 1000;

/// A loaded model.
pub struct Model {
    plan: Arc<TypedSimplePlan>,
    /// Kept from run to run: it holds the constants and scratch memory.
    state: TypedSimpleState,
    rows_at_once: usize,
    /// For each input of the plan, its place among the feeds.
    order: Vec<usize>,
    /// For each of the feeds, what the graph takes.
    elements: Vec<Element>,
    outputs: Vec<String>,
    /// Whether anything in it tells values that are missing from others.
    takes_missing: bool,
}

/// What loading an ONNX file did to it.
#[derive(Debug, Default)]
pub struct Record {
    /// What was rewritten, a line each.
    pub rewrites: Vec<String>,
    /// What works and is slow, or less exact, a sentence each.
    pub warnings: Vec<String>,
    /// The graph before the last step, which fits it to this processor; its inputs are those of the feeds, in order.
    pub graph: TypedModel,
}

impl Model {
    /// Loads the second form at `path` for inputs like `feeds`, made with the same `outputs` and for `rows_at_once`.
    /// `between` is called between the steps of loading, which have little code in common.
    pub fn load_nnef(
        path: &Path,
        feeds: &[Feed],
        outputs: &[&str],
        rows_at_once: u32,
        between: fn(),
    ) -> Result<Self, LoadFault> {
        let read = || {
            let mut typed = nnef::read(path, between)?;
            between();
            ensure!(typed.output_outlets()?.len() == outputs.len(), "it has other outputs");
            ensure!(typed.input_outlets()?.len() == feeds.len(), "it has other inputs");
            let mut elements = Vec::with_capacity(feeds.len());
            for (input, feed) in feeds.iter().enumerate() {
                let fact = typed.input_fact(input)?;
                let lengths: Vec<TDim> = feed.row_shape.iter().map(ToDim::to_dim).collect();
                let element = Element::of_datum(fact.datum_type);
                let element = element.filter(|_| fact.shape.iter().skip(1).eq(lengths.iter()));
                elements.push(element.with_context(|| format!("its input {input} is {fact:?}"))?);
            }
            begin_anew(&mut typed);
            steps::optimize(&mut typed, between)?;
            let rows = usize::try_from(rows_at_once).unwrap_or(1).clamp(1, ROWS_AT_ONCE);
            let order: Vec<usize> = (0..feeds.len()).collect();
            Self::planned(typed, &order, &elements, outputs, rows)
        };
        read().map_err(|error| fault(&error))
    }

    /// Loads `path` and optimises it for inputs like `feeds`, computing `outputs` only.
    ///
    /// Rows of a small model are run together. They are run one by one where one row already fills
    /// memory, where the model was exported for exactly one row, or where tract cannot leave the number
    /// of rows open.
    ///
    /// `between` is called between the steps of loading, which have little code in common.
    pub fn load(path: &Path, feeds: &[Feed], outputs: &[&str], between: fn()) -> Result<Self, LoadFault> {
        Self::load_recorded(path, feeds, outputs, between, None)
    }

    /// The same, with a record of what was done.
    pub fn load_recorded(
        path: &Path,
        feeds: &[Feed],
        outputs: &[&str],
        between: fn(),
        record: Option<&mut Record>,
    ) -> Result<Self, LoadFault> {
        // Only what is recorded takes memory.
        let mut unread = Record::default();
        let recorded = record.is_some();
        let record = record.unwrap_or(&mut unread);
        let framework =
            serin_classical::framework().with_ignore_value_info(true).with_ignore_output_shapes(true);
        let mut proto = framework.proto_model_for_path(path).map_err(|error| fault(&error))?;
        between();
        graph::open_zip_maps(&mut proto);
        graph::keep_only(&mut proto, outputs)?;
        let mut open = true;
        let graph_inputs = graph::inputs(&proto);
        for input in &graph_inputs {
            open &= rows_are_open(input, feeds)?;
        }
        let elements = elements(&graph_inputs, feeds)?;
        let decided = branches::decide(&mut proto, &framework, feeds, open);
        if !decided.conditions.is_empty() {
            // The branches not taken are gone, and with them what only they needed.
            graph::keep_only(&mut proto, outputs)?;
            open &= !decided.for_one_row;
            let line = |condition| format!("If on {condition} decided by the shapes of the inputs");
            record.rewrites.extend(decided.conditions.iter().map(line));
        }
        if let Some(unsupported) = operators::unsupported(&proto, &framework) {
            return Err(unsupported);
        }
        record.warnings = operators::slow(&proto);
        graph::forget_node_names(&mut proto);
        let parsed = parse(&framework, &proto)?;
        drop(proto);
        between();
        let order = input_order(&parsed, feeds)?;
        let one = sound(|| typed(parsed.clone(), feeds, &elements, &order, &1.to_dim()));
        let one = one.map_err(|error| fault(&error))?;
        between();
        let together = BATCH_BYTES.checked_div(largest_value(&one)).unwrap_or(ROWS_AT_ONCE).min(ROWS_AT_ONCE);
        if open && together > 1 {
            let rows = parsed.symbols.new_with_prefix("rows").to_dim();
            let mut built = Built::default();
            let model = sound(|| {
                let typed = typed(parsed, feeds, &elements, &order, &rows)?;
                let built = recorded.then_some(&mut built);
                Self::build(typed, &order, &elements, outputs, together, between, built)?.tried(feeds)
            });
            if let Ok(model) = model {
                record.take(built, outputs);
                return Ok(model);
            }
        } else {
            drop(parsed);
        }
        let mut built = Built::default();
        let model = sound(|| {
            Self::build(one, &order, &elements, outputs, 1, between, recorded.then_some(&mut built))
        });
        record.take(built, outputs);
        model.map_err(|error| fault(&error))
    }

    fn build(
        mut typed: TypedModel,
        order: &[usize],
        elements: &[Element],
        outputs: &[&str],
        rows_at_once: usize,
        between: fn(),
        built: Option<&mut Built>,
    ) -> TractResult<Self> {
        steps::declutter(&mut typed, between)?;
        let rewrites = softmax::write_out(&mut typed)?;
        if let Some(built) = built {
            built.rewrites = rewrites;
            built.graph = typed.clone();
            let mut inputs: Vec<(usize, OutletId)> =
                order.iter().copied().zip(typed.input_outlets()?.iter().copied()).collect();
            inputs.sort_unstable_by_key(|(place, _)| *place);
            let inputs: Vec<OutletId> = inputs.into_iter().map(|(_, outlet)| outlet).collect();
            built.graph.inputs = inputs;
        }
        steps::optimize(&mut typed, between)?;
        Self::planned(typed, order, elements, outputs, rows_at_once)
    }

    fn planned(
        optimized: TypedModel,
        order: &[usize],
        elements: &[Element],
        outputs: &[&str],
        rows_at_once: usize,
    ) -> TractResult<Self> {
        let plan = TypedSimplePlan::new(optimized)?;
        Ok(Self {
            takes_missing: plan.model().nodes().iter().any(|node| tells_missing(&node.op().name())),
            state: plan.spawn()?,
            plan,
            rows_at_once,
            order: order.to_vec(),
            elements: elements.to_vec(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
        })
    }

    /// A trial: a graph that fixes its rows somewhere inside gets through the optimiser and fails, or
    /// mixes rows, only when run. With zeros, or where those are not to be had, as in a division, with ones.
    fn tried(mut self, feeds: &[Feed]) -> TractResult<Self> {
        if let Err(error) = self.try_all(feeds, 0.0) {
            self.state = self.plan.spawn()?;
            self.try_all(feeds, 1.0).map_err(|_| error)?;
        }
        Ok(self)
    }

    fn try_all(&mut self, feeds: &[Feed], number: f32) -> TractResult<()> {
        const ROWS: usize = 2;
        let same = feeds.iter().map(|feed| match ROWS * feed.row_elements {
            count if feed.is_text => Fed::Texts(vec![String::new(); count]),
            count => Fed::Numbers(Numbers::Singles(vec![number; count])),
        });
        let same: Vec<TValue> = feeds
            .iter()
            .zip(same)
            .zip(&self.elements)
            .map(|((feed, same), element)| tensor(feed, *element, &same, ROWS))
            .collect::<Result<_, _>>()?;
        for (name, column) in self.evaluate(&same)? {
            ensure!(
                column.shape.first() == Some(&ROWS),
                "output {name} of {ROWS} rows is {:?}",
                column.shape
            );
        }
        Ok(())
    }

    /// Whether the model itself says what becomes of values that are missing. Of any other the runtime makes what it will
    /// of them: most of its activations give an answer to NaN that looks like any other.
    pub const fn takes_missing(&self) -> bool {
        self.takes_missing
    }

    /// Most rows of one [`run`](Self::run).
    pub const fn rows_at_once(&self) -> usize {
        self.rows_at_once
    }

    /// Runs the model over `rows` rows of prepared values, one list per feed, and gives its outputs.
    pub fn run(
        &mut self,
        feeds: &[Feed],
        values: &[Fed],
        rows: usize,
    ) -> Result<Vec<(String, Column<'static>)>, InferFault> {
        let tensors = feeds.iter().zip(values).zip(&self.elements);
        let tensors: Vec<TValue> = tensors
            .map(|((feed, values), element)| tensor(feed, *element, values, rows))
            .collect::<Result<_, _>>()
            .map_err(|error| InferFault::Input(text_of(&error)))?;
        match self.evaluate(&tensors) {
            Ok(columns) => Ok(columns),
            Err(error) => {
                let text = text_of(&error);
                if tells_of_exhaustion(&text) {
                    return Err(InferFault::MemoryLimit);
                }
                // A run that broke off leaves its number of rows behind, which would break the next.
                self.state = self.plan.spawn().map_err(|error| InferFault::Model(text_of(&error)))?;
                Err(InferFault::Model(text))
            }
        }
    }

    /// Runs the model over tensors in the order of the feeds.
    fn evaluate(&mut self, tensors: &[TValue]) -> TractResult<Vec<(String, Column<'static>)>> {
        let mut inputs: TVec<TValue> = tvec![];
        for place in &self.order {
            inputs.push(tensors.get(*place).context("input without a feed")?.clone());
        }
        let outputs = sound(|| self.state.run(inputs))?;
        self.outputs.iter().zip(outputs).map(|(name, value)| Ok((name.clone(), column(&value)?))).collect()
    }
}

/// What `run` answers; a panic is an error.
fn sound<T>(run: impl FnOnce() -> TractResult<T>) -> TractResult<T> {
    panics::caught(run).unwrap_or_else(|text| Err(TractError::msg(text)))
}

/// What building one variant of a model did and left.
#[derive(Default)]
struct Built {
    rewrites: Vec<String>,
    graph: TypedModel,
}

impl Record {
    fn take(&mut self, built: Built, outputs: &[&str]) {
        self.rewrites.extend(built.rewrites);
        self.warnings.extend(rounded(&built.graph, outputs));
        self.graph = built.graph;
    }
}

/// Whether the number of rows of a graph input is left open. Its other lengths and its type must be
/// those of the feed.
fn rows_are_open(input: &graph::GraphInput, feeds: &[Feed]) -> Result<bool, LoadFault> {
    let name = &input.name;
    let Some(feed) = feeds.iter().find(|feed| feed.model_input == *name) else {
        return Err(LoadFault::Invalid(format!("the model needs the input {name:?}, no step feeds it")));
    };
    let Some(shape) = &input.shape else {
        return Ok(true);
    };
    let Some((rows, row)) = shape.split_first() else {
        return Err(LoadFault::Invalid(format!("the model's input {name:?} has no axis for rows")));
    };
    let same = row.len() == feed.row_shape.len()
        && row.iter().zip(&feed.row_shape).all(|(length, fed)| length.is_none_or(|length| length == *fed));
    if !same {
        return Err(LoadFault::Invalid(format!(
            "one row of the model's input {name:?} has shape {}, the manifest declares {:?} for {}",
            graph::lengths(row),
            feed.row_shape,
            feed.name
        )));
    }
    match rows {
        None => Ok(true),
        Some(1) => Ok(false),
        Some(rows) => Err(LoadFault::Invalid(format!(
            "the model's input {name:?} takes exactly {rows} rows; export it with an open first length"
        ))),
    }
}

fn parse(framework: &Onnx, proto: &tract_onnx::pb::ModelProto) -> Result<InferenceModel, LoadFault> {
    // No directory is given: weights in files beside the model are not part of a bundle.
    let parsed = framework.parse(proto, None).map_err(|error| fault(&error))?;
    if !parsed.unresolved_inputs.is_empty() {
        let names = parsed.unresolved_inputs.join(", ");
        return Err(LoadFault::Invalid(format!("nothing in the model makes {names}")));
    }
    Ok(parsed.model)
}

/// For each input of the parsed model, its place among the feeds.
fn input_order(parsed: &InferenceModel, feeds: &[Feed]) -> Result<Vec<usize>, LoadFault> {
    let outlets = parsed.input_outlets().map_err(|error| fault(&error))?;
    let place = |outlet: &OutletId| {
        let name = &parsed.node(outlet.node).name;
        let place = feeds.iter().position(|feed| feed.model_input == *name);
        place.ok_or_else(|| {
            LoadFault::Invalid(format!("the model needs the input {name:?}, no step feeds it"))
        })
    };
    let order: Vec<usize> = outlets.iter().map(place).collect::<Result<_, _>>()?;
    match feeds.iter().enumerate().find(|(place, _)| !order.contains(place)) {
        Some((_, feed)) => Err(LoadFault::Invalid(format!(
            "input {} is fed to {:?}, which the model does not have",
            feed.name, feed.model_input
        ))),
        None => Ok(order),
    }
}

fn fault(error: &TractError) -> LoadFault {
    let text = text_of(error);
    if tells_of_exhaustion(&text) { LoadFault::MemoryLimit } else { LoadFault::Invalid(text) }
}

/// The error with its causes, cut.
fn text_of(error: &TractError) -> String {
    format!("{error:#}").chars().take(MAX_ERROR_CHARS).collect()
}
